//! The greedy rule over any engine, with constraints and explanations.

use super::{Bonus, Engine, Selection, Synergy};
use crate::cancel::Cancel;
use crate::error::{Error, Result};
use crate::simd::Vector;
use crate::workers::Workers;
use std::collections::{BTreeMap, BTreeSet};

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
    limits.check(k, m)?;
    let mut quota = Quota { per_layer: limits.per_layer, taken: BTreeMap::new() };
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

impl Limits<'_> {
    /// Are these possible for k of m candidates?
    pub(super) fn check(&self, k: usize, m: usize) -> Result<()> {
        if let Some((layers, limit)) = self.per_layer {
            if layers.len() != m {
                let got = layers.len();
                return Err(Error::argument(format!("layers has length {got}, must be {m}")));
            }
            if limit == 0 {
                return Err(Error::argument("max_per_layer is 0, must be at least 1"));
            }
        }
        let mut included = BTreeSet::new();
        for (name, ids) in [("must_include", self.include), ("must_exclude", self.exclude)] {
            for &id in ids {
                if usize::try_from(id).map_or(true, |id| id >= m) {
                    return Err(Error::argument(format!("{name} id {id} is not in 0..{m}")));
                }
                if name == "must_include" && !included.insert(id) {
                    return Err(Error::argument(format!("must_include has id {id} twice")));
                }
            }
        }
        if let Some(id) = self.exclude.iter().find(|id| included.contains(id)) {
            return Err(Error::argument(format!("id {id} must be included and excluded")));
        }
        let n = self.include.len();
        if n > k {
            return Err(Error::argument(format!("must_include has {n} ids, k is only {k}")));
        }
        let Some((layers, limit)) = self.per_layer else { return Ok(()) };
        let mut taken = BTreeMap::new();
        self.include.iter().for_each(|&id| *taken.entry(layers[id as usize]).or_insert(0) += 1);
        match taken.into_iter().find(|&(_, n)| n > limit) {
            Some((layer, n)) => Err(Error::argument(format!(
                "must_include has {n} ids of layer {layer}, at most {limit} are allowed"
            ))),
            None => Ok(()),
        }
    }
}

/// How many of each layer were taken.
struct Quota<'a> {
    per_layer: Option<(&'a [i64], usize)>,
    taken: BTreeMap<i64, usize>,
}

impl Quota<'_> {
    /// Count one, and forbid the rest of its layer when that is full.
    fn took(&mut self, id: usize, engine: &mut impl Engine) {
        let Some((layers, limit)) = self.per_layer else { return };
        let n = self.taken.entry(layers[id]).or_insert(0);
        *n += 1;
        if *n == limit {
            let same = (0..layers.len()).filter(|&f| layers[f] == layers[id]);
            same.for_each(|f| engine.forbid(f));
        }
    }
}
