//! Feature dumps.

use crate::arrays::{Array, Columns, slice};
use crate::enter::{abandonable, interruptible, watched};
use crate::errors::to_python;
use crate::matrix::LONG;
use numpy::{PyArray1, PyReadonlyArray1};
use pie_fast_core::dump::{Dump as Core, Entries, FeatureEntries};
use pie_fast_core::ranking::{Filter, active_features, rank, top_k};
use pie_fast_core::score::{Fold as CoreFold, RankBy, block_sums, score};
use pie_fast_core::{Error, Scored};
use pyo3::prelude::*;
use std::collections::BTreeMap;
use std::path::PathBuf;

type Progress = Option<Py<PyAny>>;

/// Features above which ranking or joining them takes longer than one may wait for Ctrl-C: each is
/// written to fresh memory.
const LONG_FOLD: usize = LONG / 4;

/// An opened and checked feature dump.
#[pyclass(frozen, module = "pie_fast._native")]
pub struct Dump {
    core: Core,
}

#[pymethods]
impl Dump {
    /// With `prompts` (first, end) only the shards that hold some of them need to be there.
    #[new]
    #[pyo3(signature = (path, *, prompts=None))]
    fn new(py: Python<'_>, path: PathBuf, prompts: Option<(u64, u64)>) -> PyResult<Self> {
        let core = abandonable(py, move |_| match prompts {
            None => Core::open(path),
            Some((first, end)) => Core::open_prompts(path, first..end),
        })?;
        Ok(Self { core })
    }

    #[getter]
    fn n_layers(&self) -> u64 {
        self.core.manifest().n_layers
    }

    #[getter]
    fn n_features(&self) -> u64 {
        self.core.manifest().n_features
    }

    #[getter]
    fn n_prompts(&self) -> u64 {
        self.core.n_prompts()
    }

    #[getter]
    fn n_active(&self) -> u64 {
        self.core.n_active()
    }

    #[getter]
    fn has_attribution(&self) -> bool {
        self.core.has_attribution()
    }

    /// `[n_layers * n_features]` float64.
    #[pyo3(signature = (rank_by, *, threads=None, progress=None))]
    fn score<'py>(
        &self,
        py: Python<'py>,
        rank_by: &str,
        threads: Option<usize>,
        progress: Progress,
    ) -> PyResult<Array<'py, f64>> {
        let rank_by: RankBy = rank_by.parse().map_err(to_python)?;
        let scores = watched(py, progress, |watch| score(&self.core, rank_by, threads, watch))?;
        Ok(PyArray1::from_vec(py, scores))
    }

    /// Ids and scores, best first.
    #[pyo3(signature = (k, rank_by, *, threads=None, layers=None, features=None, min_prompts=None,
                        per_layer=false, progress=None))]
    #[expect(clippy::too_many_arguments, reason = "one keyword each in Python")]
    fn top_k<'py>(
        &self,
        py: Python<'py>,
        k: i64,
        rank_by: &str,
        threads: Option<usize>,
        layers: Option<Vec<u64>>,
        features: Option<PyReadonlyArray1<'py, i64>>,
        min_prompts: Option<u64>,
        per_layer: bool,
        progress: Progress,
    ) -> PyResult<(Array<'py, i64>, Array<'py, f64>)> {
        let k = budget(k)?;
        let rank_by: RankBy = rank_by.parse().map_err(to_python)?;
        let features = features.map(|ids| slice("features", &ids).map(<[i64]>::to_vec));
        let features = features.transpose()?;
        let filter = Filter { layers, features, min_prompts, per_layer };
        let best =
            watched(py, progress, |watch| top_k(&self.core, k, rank_by, &filter, threads, watch))?;
        Ok(listed(py, &best))
    }

    /// As `top_k`, from scores, which features have entries, and prompts in which they are active.
    #[pyo3(signature = (k, scores, has_entry, *, counts=None, threads=None, layers=None,
                        features=None, min_prompts=None, per_layer=false))]
    #[expect(clippy::too_many_arguments, reason = "one keyword each in Python")]
    fn rank<'py>(
        &self,
        py: Python<'py>,
        k: i64,
        scores: PyReadonlyArray1<'py, f64>,
        has_entry: PyReadonlyArray1<'py, bool>,
        counts: Option<PyReadonlyArray1<'py, f64>>,
        threads: Option<usize>,
        layers: Option<Vec<u64>>,
        features: Option<PyReadonlyArray1<'py, i64>>,
        min_prompts: Option<u64>,
        per_layer: bool,
    ) -> PyResult<(Array<'py, i64>, Array<'py, f64>)> {
        let k = budget(k)?;
        let features = features.map(|ids| slice("features", &ids).map(<[i64]>::to_vec));
        let features = features.transpose()?;
        let filter = Filter { layers, features, min_prompts, per_layer };
        let given = (slice("scores", &scores)?, slice("has_entry", &has_entry)?);
        let counts = counts.as_ref().map(|counts| slice("counts", counts)).transpose()?;
        let best = interruptible(py, given.0.len() > LONG_FOLD, |cancel| {
            rank(&self.core, k, given, counts, &filter, threads, cancel)
        })?;
        Ok(listed(py, &best))
    }

    /// `(ids, sums)` of one block of 256 prompts.
    #[pyo3(signature = (rank_by, block, *, threads=None))]
    fn block_sums<'py>(
        &self,
        py: Python<'py>,
        rank_by: &str,
        block: u64,
        threads: Option<usize>,
    ) -> PyResult<(Array<'py, u32>, Array<'py, f64>)> {
        let rank_by: RankBy = rank_by.parse().map_err(to_python)?;
        let found =
            watched(py, None, |watch| block_sums(&self.core, rank_by, block, threads, watch))?;
        Ok((PyArray1::from_vec(py, found.ids), PyArray1::from_vec(py, found.sums)))
    }

    /// Ids of the features with an activation other than 0.
    #[pyo3(signature = (*, threads=None, progress=None))]
    fn active_features<'py>(
        &self,
        py: Python<'py>,
        threads: Option<usize>,
        progress: Progress,
    ) -> PyResult<Array<'py, i64>> {
        let ids = watched(py, progress, |watch| active_features(&self.core, threads, watch))?;
        Ok(PyArray1::from_vec(py, ids))
    }

    /// `(prompt_ptr, feature, position, activation, attribution)` of a range of prompts.
    fn entries<'py>(
        &self,
        py: Python<'py>,
        first_prompt: u64,
        n_prompts: u64,
    ) -> PyResult<Columns<'py>> {
        let all: Entries =
            watched(py, None, |watch| self.core.entries(first_prompt, n_prompts, watch))?;
        Ok((
            PyArray1::from_vec(py, all.prompt_ptr),
            PyArray1::from_vec(py, all.feature),
            PyArray1::from_vec(py, all.position),
            PyArray1::from_vec(py, all.activation),
            all.attribution.map(|values| PyArray1::from_vec(py, values)),
        ))
    }

    /// `(prompt, position, feature, activation, attribution)` of a few features.
    #[pyo3(signature = (features, *, progress=None))]
    fn entries_of<'py>(
        &self,
        py: Python<'py>,
        features: PyReadonlyArray1<'py, i64>,
        progress: Progress,
    ) -> PyResult<Columns<'py>> {
        let features = slice("features", &features)?;
        let all: FeatureEntries =
            watched(py, progress, |watch| self.core.entries_of(features, watch))?;
        Ok((
            PyArray1::from_vec(py, all.prompt),
            PyArray1::from_vec(py, all.position),
            PyArray1::from_vec(py, all.feature),
            PyArray1::from_vec(py, all.activation),
            all.attribution.map(|values| PyArray1::from_vec(py, values)),
        ))
    }

    /// Check every entry and hash; positions against `prompt_lengths` where those are not 0.
    #[pyo3(signature = (prompt_lengths, *, progress=None))]
    fn verify<'py>(
        &self,
        py: Python<'py>,
        prompt_lengths: Option<PyReadonlyArray1<'py, i64>>,
        progress: Progress,
    ) -> PyResult<()> {
        let lengths = prompt_lengths.as_ref().map(|l| slice("prompt_lengths", l)).transpose()?;
        watched(py, progress, |watch| self.core.verify(lengths, watch))
    }

    /// What a pass over all entries finds.
    #[pyo3(signature = (*, progress=None))]
    fn summary(&self, py: Python<'_>, progress: Progress) -> PyResult<Summary> {
        let s = watched(py, progress, |watch| self.core.summary(watch))?;
        Ok((s.layers, s.n_zero, s.n_negative, s.exponents, s.range, s.last_position))
    }
}

fn budget(k: i64) -> PyResult<usize> {
    usize::try_from(k)
        .map_err(|_| to_python(Error::Budget(format!("budget {k} must be at least 0"))))
}

/// Ids and scores.
fn listed<'py>(py: Python<'py>, best: &[Scored]) -> (Array<'py, i64>, Array<'py, f64>) {
    let ids = best.iter().map(|scored| scored.id as i64).collect();
    let scores = best.iter().map(|scored| scored.score).collect();
    (PyArray1::from_vec(py, ids), PyArray1::from_vec(py, scores))
}

/// Blocks of prompts joined in order, for a range of features.
#[pyclass(module = "pie_fast._native")]
pub struct Fold {
    core: CoreFold,
}

#[pymethods]
impl Fold {
    #[new]
    fn new(py: Python<'_>, rank_by: &str, first: u64, end: u64) -> PyResult<Self> {
        let rank_by: RankBy = rank_by.parse().map_err(to_python)?;
        let long = end.saturating_sub(first) > LONG_FOLD as u64;
        let core = interruptible(py, long, |cancel| CoreFold::new(rank_by, first..end, cancel))?;
        Ok(Self { core })
    }

    /// Join the next block; a fold that was interrupted here is of no more use.
    fn add(
        &mut self,
        py: Python<'_>,
        ids: PyReadonlyArray1<'_, u32>,
        sums: PyReadonlyArray1<'_, f64>,
    ) -> PyResult<()> {
        let (ids, sums) = (slice("ids", &ids)?, slice("sums", &sums)?);
        interruptible(py, ids.len() > LONG_FOLD, |cancel| self.core.add(ids, sums, cancel))
    }

    /// Scores so far, and which features have entries.
    fn finish<'py>(
        &self,
        py: Python<'py>,
        n_prompts: u64,
    ) -> PyResult<(Array<'py, f64>, Array<'py, bool>)> {
        let long = self.core.n_features() > LONG_FOLD;
        let (scores, has) = interruptible(py, long, |cancel| self.core.finish(n_prompts, cancel))?;
        Ok((PyArray1::from_vec(py, scores), PyArray1::from_vec(py, has)))
    }
}

/// Entries per layer, zeros, negatives, entries by exponent, range, last position.
type Summary = (BTreeMap<u64, u64>, u64, u64, BTreeMap<i32, u64>, Option<(f32, f32)>, Option<u32>);
