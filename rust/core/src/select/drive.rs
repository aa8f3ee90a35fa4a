//! The greedy rule over any engine, with constraints and explanations.

use super::{Bonus, Engine, Selection, Synergy};
use crate::cancel::Cancel;
use crate::error::{Error, Result};
use crate::simd::Vector;
use crate::workers::Workers;

/// Constraints on a selection; the default is none.
#[derive(Debug, Clone, Copy, Default)]
pub struct Limits<'a> {
    /// Taken first, in this order.
    pub include: &'a [i64],
    /// Never taken.
    pub exclude: &'a [i64],
    /// `[M]` layer of each candidate, and how many of one layer may be taken.
    pub per_layer: Option<(&'a [i64], usize)>,
}

/// Why one candidate was taken.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Step {
    /// The one taken.
    pub id: usize,
    /// Its score.
    pub score: f64,
    /// Its value less its score, divided bonus and rounding included: `gain = score + bonus`.
    pub bonus: f64,
    /// What it was taken for.
    pub gain: f64,
    /// The second best at this step and its value; none when nothing else remained.
    pub runner_up: Option<(usize, f64)>,
}

/// Select k candidates.
///
/// The matrix is taken to be symmetric and only the rows of the selected are read (and checked to be
/// finite); [`Synergy::check`] looks at everything.
///
/// # Shapes
/// `scores` `[M]`, `synergy` of M candidates.
///
/// # Errors
/// k over M or over what the limits leave; a score or synergy that is not finite; ids out of range;
/// an interrupt.
pub fn greedy_select<S: Vector, W: Synergy>(
    scores: &[S],
    synergy: &W,
    k: usize,
    bonus: Bonus,
    limits: Limits<'_>,
    cancel: &Cancel,
) -> Result<Selection> {
    let mut selection = Selection { ids: Vec::with_capacity(k), gains: Vec::with_capacity(k) };
    run(scores, synergy, k, bonus, limits, cancel, |_, id, gain| {
        selection.ids.push(id as i64);
        selection.gains.push(gain);
        Ok(())
    })?;
    Ok(selection)
}

/// The same selection, with the reason for each step.
///
/// # Errors
/// As [`greedy_select`].
pub fn explain<S: Vector, W: Synergy>(
    scores: &[S],
    synergy: &W,
    k: usize,
    bonus: Bonus,
    limits: Limits<'_>,
    cancel: &Cancel,
) -> Result<Vec<Step>> {
    let mut steps = Vec::with_capacity(k);
    run(scores, synergy, k, bonus, limits, cancel, |engine, id, gain| {
        let (score, _) = engine.value(id)?;
        let runner_up = engine.best(Some(id))?;
        steps.push(Step { id, score, bonus: gain - score, gain, runner_up });
        Ok(())
    })?;
    Ok(steps)
}

/// One selection per row of scores, side by side; row-major ids.
///
/// # Shapes
/// `scores` `[B, M]` row-major; result `[B, k]` row-major.
///
/// # Errors
/// As [`greedy_select`], naming the row; zero threads.
pub fn select_many<S: Vector, W: Synergy>(
    scores: &[S],
    n_rows: usize,
    synergy: &W,
    k: usize,
    bonus: Bonus,
    threads: Option<usize>,
    cancel: &Cancel,
) -> Result<Vec<i64>> {
    let m = synergy.n();
    if scores.len() != n_rows * m {
        let (got, want) = (scores.len(), n_rows * m);
        return Err(Error::argument(format!("{got} scores, must be {n_rows} x {m} = {want}")));
    }
    // A selection reads k M numbers; threads pay from some hundred microseconds on.
    let workers = Workers::new(threads, (n_rows * m).saturating_mul(k) < 1 << 20)?;
    let rows = workers.map(n_rows, |row| {
        let scores = &scores[row * m..(row + 1) * m];
        greedy_select(scores, synergy, k, bonus, Limits::default(), cancel)
            .map(|selection| selection.ids)
            .map_err(|error| match error {
                Error::Argument(message) => Error::Argument(format!("row {row}: {message}")),
                Error::Budget(message) => Error::Budget(format!("row {row}: {message}")),
                other => other,
            })
    })?;
    Ok(rows.concat())
}

fn run<'a, S: Vector, W: Synergy>(
    scores: &'a [S],
    synergy: &'a W,
    k: usize,
    bonus: Bonus,
    limits: Limits<'_>,
    cancel: &Cancel,
    mut taken: impl FnMut(&mut W::Engine<'a, S>, usize, f64) -> Result<()>,
) -> Result<()> {
    let m = scores.len();
    if k > m {
        return Err(Error::Budget(format!("k {k} exceeds the {m} candidates")));
    }
    let mut engine = synergy.engine(scores, k, bonus)?;
    let mut quota = Quota::new(limits, k, m)?;
    for &id in limits.exclude {
        engine.forbid(id as usize);
    }
    for step in 0..k {
        cancel.check()?;
        let best = match limits.include.get(step) {
            Some(&id) => Some((id as usize, engine.value(id as usize)?.1)),
            None => engine.best(None)?,
        };
        let Some((id, gain)) = best else {
            return Err(Error::Budget(format!(
                "k {k} exceeds the {step} candidates that the constraints leave"
            )));
        };
        if !gain.is_finite() {
            return Err(engine.blame());
        }
        taken(&mut engine, id, gain)?;
        engine.take(id)?;
        quota.took(id, &mut engine);
    }
    engine.finish()
}

/// How many more each layer may give.
struct Quota<'a> {
    layers: &'a [i64],
    limit: usize,
    taken: std::collections::BTreeMap<i64, usize>,
}

impl<'a> Quota<'a> {
    /// Validate the limits.
    fn new(limits: Limits<'a>, k: usize, m: usize) -> Result<Self> {
        let (layers, limit) = limits.per_layer.unwrap_or((&[], usize::MAX));
        if limits.per_layer.is_some() && layers.len() != m {
            let got = layers.len();
            return Err(Error::argument(format!("layers has length {got}, must be {m}")));
        }
        if limit == 0 {
            return Err(Error::argument("max_per_layer is 0, must be at least 1"));
        }
        let mut seen = std::collections::BTreeSet::new();
        for (name, ids) in [("must_include", limits.include), ("must_exclude", limits.exclude)] {
            for &id in ids {
                if usize::try_from(id).map_or(true, |id| id >= m) {
                    return Err(Error::argument(format!("{name} id {id} is not in 0..{m}")));
                }
                if !seen.insert(id) && name == "must_include" {
                    return Err(Error::argument(format!("must_include has id {id} twice")));
                }
            }
        }
        if let Some(id) = limits.include.iter().find(|id| limits.exclude.contains(id)) {
            return Err(Error::argument(format!("id {id} must be included and excluded")));
        }
        if limits.include.len() > k {
            let n = limits.include.len();
            return Err(Error::argument(format!("must_include has {n} ids, k is only {k}")));
        }
        let mut quota = Self { layers, limit, taken: std::collections::BTreeMap::new() };
        for &id in limits.include {
            quota.count(id as usize);
        }
        if let Some((layer, n)) = quota.taken.iter().find(|&(_, &n)| n > limit) {
            return Err(Error::argument(format!(
                "must_include has {n} ids of layer {layer}, at most {limit} are allowed"
            )));
        }
        quota.taken.clear();
        Ok(quota)
    }

    fn count(&mut self, id: usize) -> Option<(i64, usize)> {
        let layer = *self.layers.get(id)?;
        let n = self.taken.entry(layer).or_insert(0);
        *n += 1;
        Some((layer, *n))
    }

    fn took(&mut self, id: usize, engine: &mut impl Engine) {
        if let Some((layer, n)) = self.count(id)
            && n == self.limit
        {
            let same = (0..self.layers.len()).filter(|&f| self.layers[f] == layer);
            same.for_each(|f| engine.forbid(f));
        }
    }
}
