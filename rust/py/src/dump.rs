//! Feature dumps.

use crate::arrays::{Array, Columns, slice};
use crate::enter::{detached, watched};
use crate::errors::to_python;
use numpy::{PyArray1, PyReadonlyArray1};
use pie_fast_core::dump::{Dump as Core, Entries, FeatureEntries};
use pie_fast_core::ranking::{Filter, active_features, top_k, top_k_of};
use pie_fast_core::score::{Folded, RankBy, block_sums, score};
use pie_fast_core::{Error, Scored};
use pyo3::prelude::*;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

type Progress = Option<Py<PyAny>>;

/// An opened and checked feature dump.
#[pyclass(frozen, module = "pie_fast._native")]
pub struct Dump {
    core: Core,
}

#[pymethods]
impl Dump {
    #[new]
    fn new(py: Python<'_>, path: PathBuf) -> PyResult<Self> {
        Ok(Self { core: detached(py, || Core::open(path))? })
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
        let filter = filter(layers, features, min_prompts, per_layer)?;
        let best =
            watched(py, progress, |watch| top_k(&self.core, k, rank_by, &filter, threads, watch))?;
        Ok(ids_and_scores(py, &best))
    }

    /// `(block_ptr, feature, sum)` of a run of blocks of 256 prompts.
    #[pyo3(signature = (rank_by, first_block, n_blocks, *, threads=None, progress=None))]
    fn block_sums<'py>(
        &self,
        py: Python<'py>,
        rank_by: &str,
        first_block: u64,
        n_blocks: u64,
        threads: Option<usize>,
        progress: Progress,
    ) -> PyResult<(Array<'py, i64>, Array<'py, u32>, Array<'py, f64>)> {
        let rank_by: RankBy = rank_by.parse().map_err(to_python)?;
        let found = watched(py, progress, |watch| {
            block_sums(&self.core, rank_by, (first_block, n_blocks), threads, watch)
        })?;
        Ok((
            PyArray1::from_vec(py, found.block_ptr),
            PyArray1::from_vec(py, found.feature),
            PyArray1::from_vec(py, found.sum),
        ))
    }

    /// As `top_k`, from sums that were made block by block.
    #[pyo3(signature = (sums, counts, k, *, threads=None, layers=None, features=None,
                        min_prompts=None, per_layer=false))]
    #[expect(clippy::too_many_arguments, reason = "one keyword each in Python")]
    fn top_k_of<'py>(
        &self,
        py: Python<'py>,
        sums: PyRef<'py, BlockFold>,
        counts: Option<PyRef<'py, BlockFold>>,
        k: i64,
        threads: Option<usize>,
        layers: Option<Vec<u64>>,
        features: Option<PyReadonlyArray1<'py, i64>>,
        min_prompts: Option<u64>,
        per_layer: bool,
    ) -> PyResult<(Array<'py, i64>, Array<'py, f64>)> {
        let filter = filter(layers, features, min_prompts, per_layer)?;
        let (sums, counts) = (&sums.core, counts.as_ref().map(|counts| &counts.core));
        let k = budget(k)?;
        let best = detached(py, || {
            let counts = counts.map(|counts| counts.lock().unwrap_or_else(PoisonError::into_inner));
            let sums = sums.lock().unwrap_or_else(PoisonError::into_inner);
            top_k_of(&self.core, k, &sums, counts.as_deref(), &filter, threads)
        })?;
        Ok(ids_and_scores(py, &best))
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
        let all: Entries = detached(py, || self.core.entries(first_prompt, n_prompts))?;
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

/// Sums of blocks, put together in the order in which they are added.
#[pyclass(frozen, module = "pie_fast._native")]
pub struct BlockFold {
    core: Mutex<Folded>,
}

#[pymethods]
impl BlockFold {
    #[new]
    fn new(n_ids: usize, rank_by: &str) -> PyResult<Self> {
        let rank_by: RankBy = rank_by.parse().map_err(to_python)?;
        Ok(Self { core: Mutex::new(Folded::new(n_ids, rank_by).map_err(to_python)?) })
    }

    /// Add the next blocks.
    fn add<'py>(
        &self,
        py: Python<'py>,
        block_ptr: PyReadonlyArray1<'py, i64>,
        feature: PyReadonlyArray1<'py, u32>,
        sum: PyReadonlyArray1<'py, f64>,
    ) -> PyResult<()> {
        let block_ptr = slice("block_ptr", &block_ptr)?;
        let (feature, sum) = (slice("feature", &feature)?, slice("sum", &sum)?);
        detached(py, || {
            let mut core = self.core.lock().unwrap_or_else(PoisonError::into_inner);
            core.add(block_ptr, feature, sum)
        })
    }

    /// `[n_ids]` float64, as of a dump of so many prompts.
    #[pyo3(signature = (n_prompts, *, threads=None))]
    fn score<'py>(
        &self,
        py: Python<'py>,
        n_prompts: u64,
        threads: Option<usize>,
    ) -> PyResult<Array<'py, f64>> {
        let scores = detached(py, || {
            let core = self.core.lock().unwrap_or_else(PoisonError::into_inner);
            core.score(n_prompts, threads)
        })?;
        Ok(PyArray1::from_vec(py, scores))
    }
}

fn budget(k: i64) -> PyResult<usize> {
    usize::try_from(k)
        .map_err(|_| to_python(Error::Budget(format!("budget {k} must be at least 0"))))
}

fn filter(
    layers: Option<Vec<u64>>,
    features: Option<PyReadonlyArray1<'_, i64>>,
    min_prompts: Option<u64>,
    per_layer: bool,
) -> PyResult<Filter> {
    let features = features.map(|ids| slice("features", &ids).map(<[i64]>::to_vec)).transpose()?;
    Ok(Filter { layers, features, min_prompts, per_layer })
}

fn ids_and_scores<'py>(py: Python<'py>, best: &[Scored]) -> (Array<'py, i64>, Array<'py, f64>) {
    let ids = best.iter().map(|scored| scored.id as i64).collect();
    let scores = best.iter().map(|scored| scored.score).collect();
    (PyArray1::from_vec(py, ids), PyArray1::from_vec(py, scores))
}

/// Entries per layer, zeros, negatives, entries by exponent, range, last position.
type Summary = (BTreeMap<u64, u64>, u64, u64, BTreeMap<i32, u64>, Option<(f32, f32)>, Option<u32>);
