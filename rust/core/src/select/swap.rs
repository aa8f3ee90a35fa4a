//! Exchange selected candidates for others while that raises the objective.
//!
//! Greedy never takes a choice back. The objective of a set S of k candidates is
//!
//! `F(S) = sum of scores + c * sum over pairs of W`, with `c = 1 / max(k - 1, 1)` for
//! [`Bonus::Mean`] and 1 for [`Bonus::Sum`],
//!
//! so that each member counts the mean (or the sum) of its synergies with the other members: the
//! value by which greedy takes its last one. With `B[f] = sum over S of W[f, s]`, exchanging g for f
//! changes F by `(score[f] + c (B[f] - W[f, g])) - (score[g] + c (B[g] - W[g, g]))`.
//!
//! Each round looks at every pair (g, f), in O(k M), and makes the exchange that gains most, the
//! first g in order and the smaller f of equals. It counts only if F, summed anew, is larger, so
//! rounding cannot make the search go round in circles.

use super::drive::Limits;
use super::{Bonus, Synergy, not_finite, same_length, too_large};
use crate::cancel::Cancel;
use crate::error::{Error, Result};
use crate::simd::Vector;

/// What came of the exchanges.
#[derive(Debug, Clone, PartialEq)]
pub struct Swapped {
    /// `[k]`: each exchanged one has the place of the one it stands for.
    pub ids: Vec<i64>,
    /// F before the first and after the last exchange.
    pub objective: (f64, f64),
    /// `(out, in)` of each exchange.
    pub swaps: Vec<(usize, usize)>,
}

/// Improve a selection by at most `max_swaps` exchanges.
///
/// # Shapes
/// `scores` `[M]`, `ids` `[k]`, distinct. `limits.include` must be among them and stays.
///
/// # Memory
/// 24 bytes per candidate.
///
/// # Errors
/// As [`super::greedy_select`]; ids that are out of range, there twice, or against the limits.
pub fn improve_by_swaps<S: Vector, W: Synergy>(
    scores: &[S],
    synergy: &W,
    ids: &[i64],
    bonus: Bonus,
    limits: Limits<'_>,
    max_swaps: usize,
    cancel: &Cancel,
) -> Result<Swapped> {
    let mut search = Search::new(scores, synergy, ids, bonus, limits)?;
    let mut swaps = Vec::new();
    let before = search.objective(cancel)?;
    let mut now = before;
    while swaps.len() < max_swaps {
        let Some((place, f)) = search.best_swap(cancel)? else { break };
        let out = std::mem::replace(&mut search.chosen[place], f);
        let after = search.objective(cancel)?;
        if after <= now {
            search.chosen[place] = out;
            break;
        }
        (search.inside[out], search.inside[f]) = (false, true);
        now = after;
        swaps.push((out, f));
    }
    let ids = search.chosen.iter().map(|&f| f as i64).collect();
    Ok(Swapped { ids, objective: (before, now), swaps })
}

struct Search<'a, W> {
    score: Vec<f64>,
    synergy: &'a W,
    limits: Limits<'a>,
    factor: f64,
    chosen: Vec<usize>,
    inside: Vec<bool>,
    /// Neither selected nor excluded can come in.
    excluded: Vec<bool>,
}

impl<'a, W: Synergy> Search<'a, W> {
    fn new<S: Vector>(
        scores: &[S],
        synergy: &'a W,
        ids: &[i64],
        bonus: Bonus,
        limits: Limits<'a>,
    ) -> Result<Self> {
        let m = scores.len();
        same_length(scores, synergy.n())?;
        let score: Vec<f64> = scores.iter().map(|s| s.to_f64() + 0.0).collect();
        if let Some(at) = score.iter().position(|s| !s.is_finite()) {
            return Err(not_finite(format_args!("score of id {at}"), score[at]));
        }
        let mut inside = vec![false; m];
        let mut chosen = Vec::with_capacity(ids.len());
        for &id in ids {
            let at = usize::try_from(id).ok().filter(|&at| at < m);
            let at = at.ok_or_else(|| Error::argument(format!("id {id} is not in 0..{m}")))?;
            if std::mem::replace(&mut inside[at], true) {
                return Err(Error::argument(format!("id {id} is selected twice")));
            }
            chosen.push(at);
        }
        limits.check(ids.len(), m)?;
        let mut excluded = vec![false; m];
        limits.exclude.iter().for_each(|&id| excluded[id as usize] = true);
        let factor = 1.0 / bonus.divisor(ids.len().saturating_sub(1));
        let search = Self { score, synergy, limits, factor, chosen, inside, excluded };
        search.check_start()?;
        Ok(search)
    }

    /// The selection that is to be improved keeps to the limits itself.
    fn check_start(&self) -> Result<()> {
        if let Some(id) = self.limits.include.iter().find(|&&id| !self.inside[id as usize]) {
            return Err(Error::argument(format!("must_include id {id} is not selected")));
        }
        if let Some(id) = self.limits.exclude.iter().find(|&&id| self.inside[id as usize]) {
            return Err(Error::argument(format!("must_exclude id {id} is selected")));
        }
        if let Some((layers, limit)) = self.limits.per_layer {
            for &f in &self.chosen {
                let n = self.in_layer(layers, layers[f]);
                if n > limit {
                    let layer = layers[f];
                    return Err(Error::argument(format!(
                        "{n} ids of layer {layer} are selected, at most {limit} are allowed"
                    )));
                }
            }
        }
        Ok(())
    }

    fn in_layer(&self, layers: &[i64], layer: i64) -> usize {
        self.chosen.iter().filter(|&&f| layers[f] == layer).count()
    }

    /// F, added up in the order of ids.
    fn objective(&self, cancel: &Cancel) -> Result<f64> {
        let mut sorted = self.chosen.clone();
        sorted.sort_unstable();
        let (mut scores, mut pairs) = (0.0, 0.0);
        let mut row = vec![0.0; self.score.len()];
        for (at, &f) in sorted.iter().enumerate() {
            cancel.check()?;
            scores += self.score[f];
            self.synergy.add_row(f, &mut row)?;
            sorted[at + 1..].iter().for_each(|&g| pairs += row[g]);
            self.synergy.clear_row(f, &mut row)?;
        }
        let value = scores + self.factor * pairs;
        if value.is_finite() { Ok(value) } else { Err(too_large()) }
    }

    /// The place of the one to go and the one to come, if any gains.
    fn best_swap(&self, cancel: &Cancel) -> Result<Option<(usize, usize)>> {
        let m = self.score.len();
        let (mut sum, mut row) = (vec![0.0; m], vec![0.0; m]);
        for &s in &self.chosen {
            cancel.check()?;
            self.synergy.add_row(s, &mut sum)?;
        }
        let full = self.full_layers();
        let mut best: Option<(usize, usize, f64)> = None;
        for (place, &g) in self.chosen.iter().enumerate() {
            cancel.check()?;
            if self.limits.include.contains(&(g as i64)) {
                continue;
            }
            self.synergy.add_row(g, &mut row)?;
            let value = |f: usize| self.score[f] + self.factor * (sum[f] - row[f]);
            let mut top: Option<(usize, f64)> = None;
            for f in (0..m).filter(|&f| !self.inside[f] && !self.excluded[f]) {
                let value = value(f);
                if top.is_none_or(|(_, most)| value > most) && self.fits(f, g, &full) {
                    top = Some((f, value));
                }
            }
            if let Some((f, most)) = top {
                let gain = most - value(g);
                if gain > 0.0 && best.is_none_or(|(.., most)| gain > most) {
                    best = Some((place, f, gain));
                }
            }
            self.synergy.clear_row(g, &mut row)?;
        }
        Ok(best.map(|(place, f, _)| (place, f)))
    }

    fn full_layers(&self) -> std::collections::BTreeSet<i64> {
        let Some((layers, limit)) = self.limits.per_layer else { return Default::default() };
        let taken = self.chosen.iter().map(|&f| layers[f]);
        taken.filter(|&layer| self.in_layer(layers, layer) == limit).collect()
    }

    /// Does f keep to the layer limits when g is gone?
    fn fits(&self, f: usize, g: usize, full: &std::collections::BTreeSet<i64>) -> bool {
        let Some((layers, _)) = self.limits.per_layer else { return true };
        layers[f] == layers[g] || !full.contains(&layers[f])
    }
}
