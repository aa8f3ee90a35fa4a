use crate::error::{Error, Result};
use crate::select::{Bonus, Selection, Swapped};

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

/// Exchanges one by one, word for word. See [`crate::select::improve_by_swaps`].
///
/// Each member g is paired with the candidate of largest value in its place, the smaller id of
/// equals, and the pair of largest gain is exchanged, the first g of equals. `allowed(g, f)` is
/// asked with the selection as it is before g goes and f comes.
pub fn improve_by_swaps(
    scores: &[f64],
    synergy: impl Fn(usize, usize) -> f64,
    ids: &[i64],
    bonus: Bonus,
    allowed: impl Fn(&[usize], usize, usize) -> bool,
    max_swaps: usize,
) -> Swapped {
    let mut chosen: Vec<usize> = ids.iter().map(|&id| id as usize).collect();
    let factor = match bonus {
        Bonus::Mean => 1.0 / chosen.len().saturating_sub(1).max(1) as f64,
        Bonus::Sum => 1.0,
    };
    let before = objective(scores, &synergy, &chosen, factor);
    let (mut now, mut swaps) = (before, Vec::new());
    while swaps.len() < max_swaps {
        let value = |f: usize, without: usize| {
            let sum = chosen.iter().fold(0.0, |sum, &s| sum + synergy(s, f));
            (scores[f] + 0.0) + factor * (sum - synergy(without, f))
        };
        let mut best: Option<(usize, usize, f64)> = None;
        for (place, &g) in chosen.iter().enumerate() {
            let mut top: Option<(usize, f64)> = None;
            for f in (0..scores.len()).filter(|f| !chosen.contains(f)) {
                if allowed(&chosen, g, f) && top.is_none_or(|(_, most)| value(f, g) > most) {
                    top = Some((f, value(f, g)));
                }
            }
            let Some((f, most)) = top else { continue };
            let gain = most - value(g, g);
            if gain > 0.0 && best.is_none_or(|(.., most)| gain > most) {
                best = Some((place, f, gain));
            }
        }
        let Some((place, f, _)) = best else { break };
        let mut next = chosen.clone();
        next[place] = f;
        let after = objective(scores, &synergy, &next, factor);
        if after <= now {
            break;
        }
        swaps.push((chosen[place], f));
        (chosen, now) = (next, after);
    }
    Swapped { ids: chosen.iter().map(|&f| f as i64).collect(), objective: (before, now), swaps }
}

/// The sum of scores and, times the factor, of all pairs, in the order of ids.
fn objective(
    scores: &[f64],
    synergy: &impl Fn(usize, usize) -> f64,
    chosen: &[usize],
    factor: f64,
) -> f64 {
    let mut sorted = chosen.to_vec();
    sorted.sort_unstable();
    let (mut alone, mut pairs) = (0.0, 0.0);
    for (at, &f) in sorted.iter().enumerate() {
        alone += scores[f] + 0.0;
        for &g in &sorted[at + 1..] {
            pairs += synergy(f, g);
        }
    }
    alone + factor * pairs
}
