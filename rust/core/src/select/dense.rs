//! Greedy over a dense matrix: one bonus per candidate, one row added per step.

use super::{Bonus, Engine, Synergy, check, not_finite, same_length, too_large};
use crate::cancel::Cancel;
use crate::error::{Error, Result};
use crate::simd::{BLOCK, Kernel, LANES, Pass, Vector};

/// A symmetric matrix `[n, n]`, row-major. The diagonal is never used (but must be finite).
#[derive(Debug, Clone, Copy)]
pub struct Dense<'a, W> {
    values: &'a [W],
    n: usize,
    kernel: Kernel,
}

impl<'a, W: Vector> Dense<'a, W> {
    /// # Errors
    /// `values` does not hold `n * n` numbers.
    pub fn new(values: &'a [W], n: usize) -> Result<Self> {
        if n.checked_mul(n) != Some(values.len()) {
            let got = values.len();
            return Err(Error::argument(format!("synergy holds {got} numbers, must be {n} x {n}")));
        }
        Ok(Self { values, n, kernel: Kernel::detect() })
    }

    /// The same matrix with another kernel, for tests and benchmarks.
    #[must_use]
    pub fn with_kernel(self, kernel: Kernel) -> Self {
        Self { kernel, ..self }
    }

    fn row(&self, id: usize) -> &'a [W] {
        &self.values[id * self.n..(id + 1) * self.n]
    }
}

/// A running selection over a [`Dense`] matrix.
#[derive(Debug)]
pub struct DenseEngine<'a, W> {
    matrix: Dense<'a, W>,
    rule: Bonus,
    score: Vec<f64>,
    bonus: Vec<f64>,
    maxima: Vec<f64>,
    scale: f64,
    taken: Vec<usize>,
    /// Candidates neither taken nor forbidden.
    left: usize,
    /// The answer to `best(None)`, until something changes.
    best: Option<(usize, f64)>,
    /// The last one taken, when its row was not added yet.
    pending: Option<usize>,
}

impl<W: Vector> Synergy for Dense<'_, W> {
    type Engine<'a, S: Vector>
        = DenseEngine<'a, W>
    where
        Self: 'a;

    fn n(&self) -> usize {
        self.n
    }

    fn check(&self, threads: Option<usize>, cancel: &Cancel) -> Result<()> {
        check::dense(self.values, self.n, threads, cancel)
    }

    fn add_row(&self, id: usize, into: &mut [f64]) -> Result<()> {
        for (f, (sum, w)) in into.iter_mut().zip(self.row(id)).enumerate() {
            if !w.finite() {
                return Err(not_finite(format_args!("synergy[{id}, {f}]"), w));
            }
            *sum += w.to_f64();
        }
        Ok(())
    }

    fn clear_row(&self, _: usize, from: &mut [f64]) -> Result<()> {
        from.fill(0.0);
        Ok(())
    }

    fn engine<'a, S: Vector>(
        &'a self,
        scores: &'a [S],
        k: usize,
        rule: Bonus,
    ) -> Result<DenseEngine<'a, W>> {
        same_length(scores, self.n)?;
        let padded = self.n.next_multiple_of(BLOCK);
        let mut score = Vec::with_capacity(padded);
        score.extend(scores.iter().map(|s| s.to_f64() + 0.0));
        if let Some(at) = score.iter().position(|s| !s.is_finite()) {
            return Err(not_finite(format_args!("score of id {at}"), score[at]));
        }
        let scale = score.iter().fold(0.0_f64, |most, s| most.max(s.abs()));
        score.resize(padded, f64::NEG_INFINITY);
        Ok(DenseEngine {
            matrix: *self,
            rule,
            score,
            bonus: vec![0.0; padded],
            maxima: vec![0.0; padded / BLOCK * LANES],
            scale,
            taken: Vec::with_capacity(k),
            left: self.n,
            best: None,
            pending: None,
        })
    }
}

impl<W: Vector> DenseEngine<'_, W> {
    fn divisor(&self) -> f64 {
        self.rule.divisor(self.taken.len())
    }

    /// Add the row of the last one taken; its pass also finds the best.
    fn settle(&mut self) {
        let Some(id) = self.pending.take() else { return };
        let divisor = self.divisor();
        let mut pass = Pass {
            score: &self.score,
            bonus: &mut self.bonus,
            maxima: &mut self.maxima,
            divisor,
            scale: self.scale,
        };
        self.best = Some(self.matrix.kernel.step(self.matrix.row(id), &mut pass));
    }

    /// The first number that was read and is not finite.
    fn broken(&self) -> Option<Error> {
        self.taken.iter().find_map(|&s| {
            let row = self.matrix.row(s);
            let f = row.iter().position(|w| !w.finite())?;
            Some(not_finite(format_args!("synergy[{s}, {f}]"), row[f]))
        })
    }

    fn scan(&self, skip: Option<usize>) -> (usize, f64) {
        let divisor = self.divisor();
        let mut best = (0, f64::NEG_INFINITY);
        for (f, (score, bonus)) in self.score.iter().zip(&self.bonus).enumerate() {
            let value = score + bonus / divisor;
            if value > best.1 && Some(f) != skip {
                best = (f, value);
            }
        }
        best
    }
}

impl<W: Vector> Engine for DenseEngine<'_, W> {
    fn best(&mut self, skip: Option<usize>) -> Result<Option<(usize, f64)>> {
        self.settle();
        let skipped = skip.is_some_and(|f| self.score[f] != f64::NEG_INFINITY);
        if self.left == usize::from(skipped) {
            return Ok(None);
        }
        if skip.is_some() {
            return Ok(Some(self.scan(skip)));
        }
        let best = match self.best {
            Some(best) => best,
            None => self.scan(None),
        };
        self.best = Some(best);
        Ok(Some(best))
    }

    fn take(&mut self, id: usize) -> Result<()> {
        self.settle();
        self.forbid(id);
        self.taken.push(id);
        self.pending = Some(id);
        Ok(())
    }

    fn forbid(&mut self, id: usize) {
        if self.score[id] != f64::NEG_INFINITY {
            self.score[id] = f64::NEG_INFINITY;
            self.left -= 1;
            self.best = None;
        }
    }

    fn value(&mut self, id: usize) -> Result<(f64, f64)> {
        self.settle();
        Ok((self.score[id], self.score[id] + self.bonus[id] / self.divisor()))
    }

    fn blame(&self) -> Error {
        self.broken().unwrap_or_else(too_large)
    }

    /// A number that is not finite makes every later sum with it not finite, so looking at the
    /// sums once, after the last step, finds it, and the steps need not look.
    fn finish(&self) -> Result<()> {
        if self.bonus.iter().all(|b| b.is_finite()) {
            return Ok(());
        }
        self.broken().map_or(Ok(()), Err)
    }
}
