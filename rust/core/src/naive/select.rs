use crate::error::{Error, Result};
use crate::select::{Bonus, Selection};

/// The greedy rule, word for word. See [`crate::select::greedy_select`].
///
/// # Errors
/// k over the number of candidates; a value that is not finite.
pub fn greedy_select(
    scores: &[f64],
    synergy: impl Fn(usize, usize) -> f64,
    k: usize,
    bonus: Bonus,
) -> Result<Selection> {
    let mut chosen: Vec<usize> = Vec::new();
    let mut gains = Vec::new();
    while chosen.len() < k {
        let mut best: Option<(usize, f64)> = None;
        for f in (0..scores.len()).filter(|f| !chosen.contains(f)) {
            let mut sum = 0.0;
            for &s in &chosen {
                sum += synergy(f, s);
            }
            let divisor = match bonus {
                Bonus::Mean => chosen.len().max(1) as f64,
                Bonus::Sum => 1.0,
            };
            let value = (scores[f] + 0.0) + sum / divisor;
            if best.is_none_or(|(_, most)| value > most) {
                best = Some((f, value));
            }
        }
        let (f, value) = best.ok_or_else(|| Error::argument("k exceeds the candidates"))?;
        if !value.is_finite() {
            return Err(Error::argument("not finite"));
        }
        chosen.push(f);
        gains.push(value);
    }
    Ok(Selection { ids: chosen.iter().map(|&f| f as i64).collect(), gains })
}
