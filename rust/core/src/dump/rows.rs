//! The entries of a few prompts: read by pread, checked, widened to u32 and f32.

use crate::dump::shard::{FloatType, Shard};
use crate::error::Result;
use crate::file::{Source, room};
use crate::gram_kernel::widen;
use crate::simd;
use std::ops::Range;

/// Which of the two value columns are wanted. Features and positions are always read: their
/// order is checked before anything is added up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Want {
    pub activation: bool,
    pub attribution: bool,
}

/// A column of numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Column {
    Activation,
    Attribution,
}

/// Buffers for the entries of a run of prompts, used again and again.
#[derive(Debug, Default)]
pub(crate) struct Rows {
    n: usize,
    feature: Vec<u32>,
    scratch: Scratch,
    activation: Vec<f32>,
    attribution: Vec<f32>,
}

impl Rows {
    /// Read the entries of the shard's prompts `prompts` and check them.
    ///
    /// # Errors
    /// Entries out of order or twice, ids out of range, numbers that are not finite, a file that
    /// ends too early.
    pub fn load(&mut self, shard: &Shard, prompts: Range<usize>, want: Want) -> Result<()> {
        let begin = shard.prompt_ptr[prompts.start];
        let n = (shard.prompt_ptr[prompts.end] - begin) as usize;
        self.n = n;
        self.scratch.read_features(shard, prompts, room(&mut self.feature, n)?)?;
        if want.activation {
            let out = room(&mut self.activation, n)?;
            self.scratch.read_values(shard, Column::Activation, begin, out)?;
        }
        if want.attribution {
            let out = room(&mut self.attribution, n)?;
            self.scratch.read_values(shard, Column::Attribution, begin, out)?;
        }
        Ok(())
    }

    /// Global feature ids.
    pub fn features(&self) -> &[u32] {
        &self.feature[..self.n]
    }

    /// Activations; only when they were wanted.
    pub fn activations(&self) -> &[f32] {
        &self.activation[..self.n]
    }

    /// Attributions; only when they were wanted and the dump has them.
    pub fn attributions(&self) -> &[f32] {
        &self.attribution[..self.n]
    }

    /// The position of entry `i`.
    pub fn position(&self, i: usize) -> u32 {
        self.scratch.position(i)
    }
}

/// What is needed to read and check a column, and the positions read last.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    narrow: Vec<u16>,
    wide: Vec<u32>,
    is_wide: bool,
    half: Vec<u16>,
}

impl Scratch {
    /// Fill `out` with the feature ids of `prompts`, and check ids and order.
    ///
    /// # Errors
    /// As [`Rows::load`].
    pub fn read_features(
        &mut self,
        shard: &Shard,
        prompts: Range<usize>,
        out: &mut [u32],
    ) -> Result<()> {
        let begin = shard.prompt_ptr[prompts.start];
        let (source, columns) = (&shard.source, &shard.columns);
        source.read(out, columns.feature + 4 * begin)?;
        self.is_wide = columns.wide_position;
        if self.is_wide {
            source.read(room(&mut self.wide, out.len())?, columns.position + 4 * begin)?;
        } else {
            source.read(room(&mut self.narrow, out.len())?, columns.position + 2 * begin)?;
        }
        self.check_order(shard, prompts, out)
    }

    /// Fill `out` with the numbers of a column from entry `begin` on, and check that they are
    /// finite. The dump has the column.
    ///
    /// # Errors
    /// As [`Rows::load`].
    pub fn read_values(
        &mut self,
        shard: &Shard,
        column: Column,
        begin: u64,
        out: &mut [f32],
    ) -> Result<()> {
        let (source, columns) = (&shard.source, &shard.columns);
        match (column, columns.attribution) {
            (Column::Attribution, None) => return Ok(()),
            (Column::Attribution, Some(offset)) => {
                source.read(out, offset + 4 * begin)?;
                return check_finite(source, "attribution", out, begin);
            }
            (Column::Activation, _) => {}
        }
        let offset = columns.activation + columns.activation_type.size() * begin;
        if columns.activation_type == FloatType::F32 {
            source.read(out, offset)?;
        } else {
            let half = room(&mut self.half, out.len())?;
            source.read(half, offset)?;
            widen(half, columns.activation_type, out);
        }
        check_finite(source, "activation", out, begin)
    }

    fn position(&self, i: usize) -> u32 {
        if self.is_wide { self.wide[i] } else { u32::from(self.narrow[i]) }
    }

    fn check_order(&self, shard: &Shard, prompts: Range<usize>, ids: &[u32]) -> Result<()> {
        let begin = shard.prompt_ptr[prompts.start];
        for prompt in prompts {
            let from = (shard.prompt_ptr[prompt] - begin) as usize;
            let to = (shard.prompt_ptr[prompt + 1] - begin) as usize;
            let feature = &ids[from..to];
            let bad = if self.is_wide {
                first_disorder(feature, &self.wide[from..to])
            } else {
                first_disorder(feature, &self.narrow[from..to])
            };
            if let Some(i) = bad {
                return Err(self.disorder(shard, (prompt, begin), ids, from + i));
            }
            // Ids rise within a prompt, so the last one is the largest.
            if let Some(&last) = feature.last().filter(|&&id| u64::from(id) >= shard.n_ids) {
                let entry = begin + to as u64 - 1;
                let message = format!("{last} at entry {entry} is outside [0, {})", shard.n_ids);
                return Err(shard.source.wrong("feature", message));
            }
        }
        Ok(())
    }

    fn disorder(
        &self,
        shard: &Shard,
        (prompt, begin): (usize, u64),
        ids: &[u32],
        i: usize,
    ) -> crate::Error {
        let pair = |i: usize| (ids[i], self.position(i));
        let (a, b) = (pair(i), pair(i + 1));
        let fault = if a == b { "is there twice" } else { "is out of order" };
        let message = format!(
            "(feature, position) {b:?} at entry {} of prompt {} follows {a:?}: it {fault}",
            begin + i as u64 + 1,
            shard.first_prompt + prompt as u64,
        );
        shard.source.wrong("feature", message)
    }
}

/// The first `i` whose pair is not strictly below pair `i + 1`.
fn first_disorder<P: Copy + Ord>(feature: &[u32], position: &[P]) -> Option<usize> {
    let rises = |i: usize| {
        (feature[i] < feature[i + 1])
            | ((feature[i] == feature[i + 1]) & (position[i] < position[i + 1]))
    };
    let n = feature.len().saturating_sub(1);
    let bad = n > 0 && simd::widest(Disorder { feature, position });
    if bad { (0..n).find(|&i| !rises(i)) } else { None }
}

/// Whether any pair is not strictly below the next; there is at least one.
struct Disorder<'a, P> {
    feature: &'a [u32],
    position: &'a [P],
}

impl<P: Copy + Ord> simd::Loop for Disorder<'_, P> {
    type Output = bool;

    /// No early exit: this loop runs over every entry of every scan and must vectorise.
    #[inline(always)]
    fn run(self) -> bool {
        let n = self.feature.len() - 1;
        let (f, next_f) = (&self.feature[..n], &self.feature[1..=n]);
        let (p, next_p) = (&self.position[..n], &self.position[1..=n]);
        (0..n).fold(false, |bad, i| {
            bad | !((f[i] < next_f[i]) | ((f[i] == next_f[i]) & (p[i] < next_p[i])))
        })
    }
}

struct Infinite<'a>(&'a [f32]);

impl simd::Loop for Infinite<'_> {
    type Output = bool;

    #[inline(always)]
    fn run(self) -> bool {
        self.0.iter().fold(false, |bad, v| bad | infinite(v))
    }
}

#[inline(always)]
fn infinite(value: &f32) -> bool {
    const EXPONENT: u32 = 0x7f80_0000;
    value.to_bits() & EXPONENT == EXPONENT
}

fn check_finite(source: &Source, name: &str, values: &[f32], begin: u64) -> Result<()> {
    if !simd::widest(Infinite(values)) {
        return Ok(());
    }
    let i = values.iter().position(infinite).unwrap_or(0);
    let message = format!("{} at entry {} is not finite", values[i], begin + i as u64);
    Err(source.wrong(name, message))
}
