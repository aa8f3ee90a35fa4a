//! A collector from a state that may be broken: every length, order, range and number is checked.
//!
//! Which sequences are kept follows from the peaks, so the peaks are fed to a new collector and
//! what it keeps must be what the state says.

use super::feature::{Feature, Peak, magnitude};
use super::seen::Seen;
use super::{Collector, Limits, N_BINS, SILENT, State};
use crate::error::{Error, Result};
use std::collections::BTreeMap;

impl Collector {
    /// The collector that `state` was taken from.
    ///
    /// # Errors
    /// A state that no collector can have; the message names the array and the value.
    pub fn from_state(state: &State) -> Result<Self> {
        let k = state.fires.len();
        length("limits", &state.limits, 3)?;
        length("counts", &state.counts, 2)?;
        // Before memory is taken for so many features.
        length("coactive", &state.coactive, k.saturating_mul(k))?;
        length("histogram", &state.histogram, k.saturating_mul(N_BINS))?;
        for (name, values) in [
            ("limits", &state.limits),
            ("counts", &state.counts),
            ("seen", &state.seen),
            ("fires", &state.fires),
            ("coactive", &state.coactive),
            ("histogram", &state.histogram),
        ] {
            if let Some(at) = values.iter().position(|&value| value < 0) {
                return wrong(format!("{name} has {}, must be at least 0", values[at]));
            }
        }
        let [n_top, n_sample, n_silent] = [0, 1, 2].map(|i| state.limits[i] as usize);
        let mut made = Self::new(k, Limits { n_top, n_sample, n_silent })?;
        made.seen = seen(state)?;
        made.counted = state.counts[1] as u64;
        made.pairs = pairs(state, k)?;
        let n_peaks = state.peak_sequence.len();
        length("peak_position", &state.peak_position, n_peaks)?;
        length("peak_value", &state.peak_value, n_peaks)?;
        pointers("peak_ptr", &state.peak_ptr, k, n_peaks)?;
        let n_kept = state.kept_sequence.len();
        length("kept_kind", &state.kept_kind, n_kept)?;
        pointers("kept_ptr", &state.kept_ptr, k, n_kept)?;
        pointers("kept_values_ptr", &state.kept_values_ptr, n_kept, state.kept_values.len())?;
        for (i, feature) in made.features.iter_mut().enumerate() {
            One { state, seen: &made.seen, i }.fill(feature, n_silent)?;
        }
        Ok(made)
    }
}

fn wrong<T>(message: String) -> Result<T> {
    Err(Error::argument(message))
}

fn length<T>(name: &str, values: &[T], expected: usize) -> Result<()> {
    if values.len() == expected {
        return Ok(());
    }
    wrong(format!("{name} has length {}, must be {expected}", values.len()))
}

/// `ptr` goes from 0 to `end` in `n` steps, none of them down.
fn pointers(name: &str, ptr: &[i64], n: usize, end: usize) -> Result<()> {
    length(name, ptr, n + 1)?;
    if let Some(i) = ptr.windows(2).position(|two| two[1] < two[0]) {
        return wrong(format!("{name}[{}] is {}, must be at least {}", i + 1, ptr[i + 1], ptr[i]));
    }
    let (first, last) = (ptr[0], ptr[n]);
    if first != 0 || usize::try_from(last) != Ok(end) {
        return wrong(format!("{name} goes from {first} to {last}, must go from 0 to {end}"));
    }
    Ok(())
}

fn seen(state: &State) -> Result<Seen> {
    let ends = &state.seen;
    length("seen", ends, ends.len() / 2 * 2)?;
    if let Some(i) = ends.windows(2).position(|two| two[1] <= two[0]) {
        return wrong(format!("seen has {} after {}, must ascend", ends[i + 1], ends[i]));
    }
    let mut seen = Seen::default();
    ends.chunks_exact(2).for_each(|range| seen.insert(range[0] as u64..range[1] as u64));
    if seen.n_sequences() != state.counts[0] as u64 {
        let (n, count) = (seen.n_sequences(), state.counts[0]);
        return wrong(format!("counts has {count} sequences, must be the {n} of seen"));
    }
    Ok(seen)
}

fn pairs(state: &State, k: usize) -> Result<Vec<u64>> {
    let (fires, counted) = (&state.fires, state.counts[1]);
    if let Some(i) = fires.iter().position(|&fires| fires > counted) {
        let (n, most) = (fires[i], counted);
        return wrong(format!("fires[{i}] is {n}, must be at most the {most} counted positions"));
    }
    for i in 0..k {
        for j in i..k {
            let (here, there) = (state.coactive[i * k + j], state.coactive[j * k + i]);
            if here != there {
                return wrong(format!("coactive[{i}, {j}] is {here}, [{j}, {i}] is {there}"));
            }
            let (least, most) = (if i == j { fires[i] } else { 0 }, fires[i].min(fires[j]));
            if here < least || here > most {
                let valid = format!("must be in {least}..={most} as fires");
                return wrong(format!("coactive[{i}, {j}] is {here}, {valid}"));
            }
        }
    }
    Ok(state.coactive.iter().map(|&count| count as u64).collect())
}

/// One feature of a state whose lengths and pointers are checked.
struct One<'a> {
    state: &'a State,
    seen: &'a Seen,
    i: usize,
}

impl<'a> One<'a> {
    fn fill(&self, feature: &mut Feature, n_silent: usize) -> Result<()> {
        let (i, fires) = (self.i, self.state.fires[self.i]);
        let counts = &self.state.histogram[i * N_BINS..(i + 1) * N_BINS];
        let sum: i128 = counts.iter().map(|&count| i128::from(count)).sum();
        if sum != i128::from(fires) {
            return wrong(format!("histogram[{i}] adds up to {sum}, must be the {fires} of fires"));
        }
        feature.histogram = counts.iter().map(|&count| count as u64).collect();
        let (peaks, kept) = (self.peaks()?, self.kept()?);
        peaks.values().for_each(|&peak| feature.active(peak));
        self.check_kept(&kept, &peaks, feature)?;
        for (sequence, made) in &mut feature.kept {
            made.values = kept.get(sequence).map_or_else(Vec::new, |kept| kept.values.to_vec());
        }
        let silent = kept.iter().filter(|(_, kept)| kept.kind == SILENT);
        let n = silent.clone().count() as u64;
        let there = self.seen.n_sequences() - peaks.len() as u64;
        if n != there.min(n_silent as u64) {
            let must = there.min(n_silent as u64);
            return wrong(format!("kept_kind of feature {i} has {n} silent, must have {must}"));
        }
        silent.for_each(|(&sequence, _)| feature.silent(sequence));
        Ok(())
    }

    fn peaks(&self) -> Result<BTreeMap<u64, Peak>> {
        let (i, state) = (self.i, self.state);
        let range = state.peak_ptr[i] as usize..state.peak_ptr[i + 1] as usize;
        let (n, fires) = (range.len() as i64, state.fires[i]);
        if n > fires || (n == 0 && fires > 0) {
            return wrong(format!("peak_ptr gives feature {i} {n} peaks, fires[{i}] is {fires}"));
        }
        self.check_sequences("peak_sequence", &state.peak_sequence[range.clone()])?;
        let peak = |at: usize| {
            let (sequence, value) = (state.peak_sequence[at] as u64, state.peak_value[at]);
            let position = u32::try_from(state.peak_position[at]);
            let Ok(position) = position else {
                let (is, most) = (state.peak_position[at], u32::MAX);
                return wrong(format!("peak_position[{at}] is {is}, must be in 0..={most}"));
            };
            if !value.is_finite() || value == 0.0 {
                return wrong(format!("peak_value[{at}] is {value}, must be finite and not 0"));
            }
            Ok((sequence, Peak { sequence, position, value }))
        };
        range.map(peak).collect()
    }

    fn kept(&self) -> Result<BTreeMap<u64, Stored<'a>>> {
        let (i, state) = (self.i, self.state);
        let range = state.kept_ptr[i] as usize..state.kept_ptr[i + 1] as usize;
        self.check_sequences("kept_sequence", &state.kept_sequence[range.clone()])?;
        let stored = |at: usize| {
            let values = state.kept_values_ptr[at] as usize..state.kept_values_ptr[at + 1] as usize;
            let values = &state.kept_values[values];
            if let Some(value) = values.iter().find(|value| !value.is_finite()) {
                return wrong(format!("kept_values has {value}, must be finite"));
            }
            let sequence = state.kept_sequence[at] as u64;
            Ok((sequence, Stored { kind: state.kept_kind[at], values }))
        };
        range.map(stored).collect()
    }

    /// They ascend and were added.
    fn check_sequences(&self, name: &str, sequences: &[i64]) -> Result<()> {
        let i = self.i;
        if let Some(two) = sequences.windows(2).find(|two| two[1] <= two[0]) {
            let (before, after) = (two[0], two[1]);
            return wrong(format!("{name} of feature {i} has {after} after {before}, must ascend"));
        }
        let there = |&sequence: &i64| {
            u64::try_from(sequence).is_ok_and(|sequence| self.seen.contains(sequence))
        };
        match sequences.iter().find(|sequence| !there(sequence)) {
            Some(sequence) => {
                wrong(format!("{name} of feature {i} has {sequence}, which is not in seen"))
            }
            None => Ok(()),
        }
    }

    /// What is stored is what `feature` keeps of its `peaks`, and for the rest silent sequences.
    fn check_kept(
        &self,
        kept: &BTreeMap<u64, Stored<'_>>,
        peaks: &BTreeMap<u64, Peak>,
        feature: &Feature,
    ) -> Result<()> {
        let i = self.i;
        if let Some(sequence) = feature.kept.keys().find(|sequence| !kept.contains_key(sequence)) {
            return wrong(format!("kept_sequence of feature {i} lacks {sequence}"));
        }
        for (sequence, Stored { kind, values }) in kept {
            let of = format!("of feature {i}, sequence {sequence}");
            let (must, peak) = match (feature.kept.get(sequence), peaks.get(sequence)) {
                (Some(one), Some(peak)) => (one.kind, Some((peak.position as usize, peak.value))),
                (None, Some(_)) => return wrong(format!("kept_sequence {of} must not be there")),
                _ => (SILENT, None),
            };
            if *kind != must {
                return wrong(format!("kept_kind {of} is {kind}, must be {must}"));
            }
            let is = strongest(values);
            if is != peak || (peak.is_none() && !values.is_empty()) {
                let is = is.map_or("none".into(), |(at, value)| format!("{value} at {at}"));
                let must = peak.map_or("none".into(), |(at, value)| format!("{value} at {at}"));
                return wrong(format!("kept_values {of} have peak {is}, must have {must}"));
            }
        }
        Ok(())
    }
}

/// A kept sequence as it is stored.
struct Stored<'a> {
    kind: u8,
    values: &'a [f32],
}

/// Where and what the first of the strongest activations is, if one is not 0.
fn strongest(values: &[f32]) -> Option<(usize, f32)> {
    let mut peak = None;
    let mut most = 0;
    for (at, &value) in values.iter().enumerate() {
        if magnitude(value) > most {
            (most, peak) = (magnitude(value), Some((at, value)));
        }
    }
    peak
}
