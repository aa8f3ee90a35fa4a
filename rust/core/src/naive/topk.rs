use crate::error::{Error, Result};

/// Sort everything: score descending, id ascending. See [`crate::topk::top_k`].
///
/// # Errors
/// k over the number of scores; a NaN.
pub fn top_k(scores: &[f64], k: usize) -> Result<Vec<usize>> {
    if k > scores.len() || scores.iter().any(|s| s.is_nan()) {
        return Err(Error::argument("k exceeds the scores, or NaN"));
    }
    let mut ids: Vec<usize> = (0..scores.len()).collect();
    ids.sort_by(|&a, &b| (scores[b] + 0.0).total_cmp(&(scores[a] + 0.0)));
    ids.truncate(k);
    Ok(ids)
}
