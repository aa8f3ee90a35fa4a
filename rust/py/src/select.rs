//! Top-k and greedy selection over borrowed numpy arrays.

use crate::arrays::{Either, slice};
use crate::enter::interruptible;
use crate::errors::to_python;
use crate::matrix::{LONG, Matrix, Visit, over, with_scores};
use numpy::{Ix1, Ix2, PyArray1, PyArray2, PyArrayMethods, PyReadonlyArray1};
use pie_fast_core::select::{self, Bonus, Limits, Synergy};
use pie_fast_core::simd::Vector;
use pie_fast_core::topk::{self, Filter};
use pie_fast_core::{Cancel, Result};
use pyo3::prelude::*;

/// Ids and gains.
type Chosen<'py> = (Bound<'py, PyArray1<i64>>, Bound<'py, PyArray1<f64>>);
/// Ids, objective before and after, exchanges.
type Improved<'py> = (Bound<'py, PyArray1<i64>>, (f64, f64), Vec<(usize, usize)>);
/// Id, score, bonus, gain, and the runner-up with its value.
type Reason = (usize, f64, f64, f64, Option<(usize, f64)>);

/// Constraints as they come from Python; empty arrays stand for none.
#[derive(FromPyObject)]
pub struct PyLimits<'py> {
    #[pyo3(item)]
    must_include: PyReadonlyArray1<'py, i64>,
    #[pyo3(item)]
    must_exclude: PyReadonlyArray1<'py, i64>,
    #[pyo3(item)]
    layers: Option<PyReadonlyArray1<'py, i64>>,
    #[pyo3(item)]
    max_per_layer: usize,
}

impl PyLimits<'_> {
    fn borrow(&self) -> PyResult<Limits<'_>> {
        let layers = self.layers.as_ref().map(|layers| slice("layers", layers)).transpose()?;
        Ok(Limits {
            include: slice("must_include", &self.must_include)?,
            exclude: slice("must_exclude", &self.must_exclude)?,
            per_layer: layers.map(|layers| (layers, self.max_per_layer)),
        })
    }
}

fn limits<'a>(limits: Option<&'a PyLimits<'_>>) -> PyResult<Limits<'a>> {
    limits.map_or_else(|| Ok(Limits::default()), PyLimits::borrow)
}

struct Check;

impl Visit for Check {
    type Output = ();
    fn visit<S: Vector, W: Synergy>(self, _: &[S], synergy: &W, cancel: &Cancel) -> Result<()> {
        synergy.check(None, cancel)
    }
}

struct Greedy<'a>(usize, Bonus, Limits<'a>);

impl Visit for Greedy<'_> {
    type Output = select::Selection;
    fn visit<S: Vector, W: Synergy>(
        self,
        scores: &[S],
        synergy: &W,
        cancel: &Cancel,
    ) -> Result<select::Selection> {
        select::greedy_select(scores, synergy, self.0, self.1, self.2, cancel)
    }
}

struct Explain<'a>(usize, Bonus, Limits<'a>);

impl Visit for Explain<'_> {
    type Output = Vec<select::Step>;
    fn visit<S: Vector, W: Synergy>(
        self,
        scores: &[S],
        synergy: &W,
        cancel: &Cancel,
    ) -> Result<Vec<select::Step>> {
        select::explain(scores, synergy, self.0, self.1, self.2, cancel)
    }
}

struct Many(usize, usize, Bonus, Option<usize>);

impl Visit for Many {
    type Output = Vec<i64>;
    fn visit<S: Vector, W: Synergy>(
        self,
        scores: &[S],
        synergy: &W,
        cancel: &Cancel,
    ) -> Result<Vec<i64>> {
        select::select_many(scores, self.0, synergy, self.1, self.2, self.3, cancel)
    }
}

struct Swap<'a>(&'a [i64], Bonus, Limits<'a>, usize);

impl Visit for Swap<'_> {
    type Output = select::Swapped;
    fn visit<S: Vector, W: Synergy>(
        self,
        scores: &[S],
        synergy: &W,
        cancel: &Cancel,
    ) -> Result<select::Swapped> {
        select::improve_by_swaps(scores, synergy, self.0, self.1, self.2, self.3, cancel)
    }
}

fn bonus_of(text: &str) -> PyResult<Bonus> {
    text.parse().map_err(to_python)
}

/// How many numbers a selection of k looks at.
fn work(m: usize, k: usize) -> usize {
    m.saturating_mul(k)
}

/// Every number of the matrix: finite, in range, symmetric.
#[pyfunction]
pub fn check_synergy(py: Python<'_>, synergy: Matrix<'_>) -> PyResult<()> {
    with_scores::<_, f64>(py, &[], &synergy, synergy.len(), Check)
}

/// Ids and gains of a greedy selection; only the rows of the selected are read.
#[pyfunction]
#[pyo3(signature = (scores, synergy, k, bonus, limits = None))]
pub fn greedy_select<'py>(
    py: Python<'py>,
    scores: &Bound<'py, PyAny>,
    synergy: Matrix<'py>,
    k: usize,
    bonus: &str,
    limits: Option<PyLimits<'py>>,
) -> PyResult<Chosen<'py>> {
    let scores = Either::<f64, f32, Ix1>::extract("scores", "float64 or float32", scores)?;
    let greedy = Greedy(k, bonus_of(bonus)?, self::limits(limits.as_ref())?);
    let long = work(scores.len(), k);
    let chosen = over(py, &scores, &synergy, long, greedy)?;
    Ok((PyArray1::from_vec(py, chosen.ids), PyArray1::from_vec(py, chosen.gains)))
}

/// What was taken at each step, and why.
#[pyfunction]
#[pyo3(signature = (scores, synergy, k, bonus, limits = None))]
pub fn explain_selection(
    py: Python<'_>,
    scores: &Bound<'_, PyAny>,
    synergy: Matrix<'_>,
    k: usize,
    bonus: &str,
    limits: Option<PyLimits<'_>>,
) -> PyResult<Vec<Reason>> {
    let scores = Either::<f64, f32, Ix1>::extract("scores", "float64 or float32", scores)?;
    let explain = Explain(k, bonus_of(bonus)?, self::limits(limits.as_ref())?);
    let long = work(scores.len(), k).saturating_mul(2);
    let steps = over(py, &scores, &synergy, long, explain)?;
    Ok(steps.iter().map(|s| (s.id, s.score, s.bonus, s.gain, s.runner_up)).collect())
}

/// The ids after exchanges that raise the objective, the objective before and after, and the
/// exchanges as (out, in).
#[pyfunction]
#[pyo3(signature = (scores, synergy, ids, bonus, max_swaps, limits = None))]
pub fn improve_by_swaps<'py>(
    py: Python<'py>,
    scores: &Bound<'py, PyAny>,
    synergy: Matrix<'py>,
    ids: PyReadonlyArray1<'py, i64>,
    bonus: &str,
    max_swaps: usize,
    limits: Option<PyLimits<'py>>,
) -> PyResult<Improved<'py>> {
    let scores = Either::<f64, f32, Ix1>::extract("scores", "float64 or float32", scores)?;
    let (ids, bonus) = (slice("ids", &ids)?, bonus_of(bonus)?);
    let swap = Swap(ids, bonus, self::limits(limits.as_ref())?, max_swaps);
    let long = work(scores.len(), ids.len()).saturating_mul(max_swaps);
    let done = over(py, &scores, &synergy, long, swap)?;
    Ok((PyArray1::from_vec(py, done.ids), done.objective, done.swaps))
}

/// One selection per row of scores; `[B, k]` ids.
#[pyfunction]
pub fn greedy_select_many<'py>(
    py: Python<'py>,
    scores: &Bound<'py, PyAny>,
    synergy: Matrix<'py>,
    k: usize,
    bonus: &str,
    threads: Option<usize>,
) -> PyResult<Bound<'py, PyArray2<i64>>> {
    let scores = Either::<f64, f32, Ix2>::extract("scores", "float64 or float32", scores)?;
    let n_rows = scores.shape()[0];
    let many = Many(n_rows, k, bonus_of(bonus)?, threads);
    let ids = over(py, &scores, &synergy, work(scores.len(), k), many)?;
    PyArray1::from_vec(py, ids).reshape([n_rows, k])
}

/// The ids of the k largest scores.
#[pyfunction]
pub fn top_k<'py>(
    py: Python<'py>,
    scores: &Bound<'py, PyAny>,
    k: usize,
    mask: Option<PyReadonlyArray1<'py, bool>>,
    threads: Option<usize>,
) -> PyResult<Bound<'py, PyArray1<i64>>> {
    let scores = Either::<f64, f32, Ix1>::extract("scores", "float64 or float32", scores)?;
    let mask = mask.as_ref().map(|mask| slice("mask", mask)).transpose()?;
    let filter = Filter { mask, finite: false };
    let best = match &scores {
        Either::A(scores) => best_of(py, slice("scores", scores)?, k, filter, threads)?,
        Either::B(scores) => best_of(py, slice("scores", scores)?, k, filter, threads)?,
    };
    Ok(PyArray1::from_iter(py, best.iter().map(|one| one.id as i64)))
}

fn best_of<S: Vector>(
    py: Python<'_>,
    scores: &[S],
    k: usize,
    filter: Filter<'_>,
    threads: Option<usize>,
) -> PyResult<Vec<pie_fast_core::Scored>> {
    let long = scores.len() > LONG;
    interruptible(py, long, |cancel| topk::top_k(scores, k, filter, threads, cancel))
}

/// The ids of the k largest scores of each layer, layer by layer.
#[pyfunction]
pub fn top_k_per_layer<'py>(
    py: Python<'py>,
    scores: &Bound<'py, PyAny>,
    k: usize,
    n_features: usize,
    threads: Option<usize>,
) -> PyResult<Bound<'py, PyArray1<i64>>> {
    let scores = Either::<f64, f32, Ix1>::extract("scores", "float64 or float32", scores)?;
    let best = match &scores {
        Either::A(scores) => best_of_each(py, slice("scores", scores)?, k, n_features, threads)?,
        Either::B(scores) => best_of_each(py, slice("scores", scores)?, k, n_features, threads)?,
    };
    Ok(PyArray1::from_iter(py, best.iter().flatten().map(|one| one.id as i64)))
}

fn best_of_each<S: Vector>(
    py: Python<'_>,
    scores: &[S],
    k: usize,
    n_features: usize,
    threads: Option<usize>,
) -> PyResult<Vec<Vec<pie_fast_core::Scored>>> {
    interruptible(py, scores.len() > LONG, |cancel| {
        topk::top_k_per_layer(scores, k, n_features, Filter::default(), threads, cancel)
    })
}
