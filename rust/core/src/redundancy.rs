//! Redundancy: how alike the writes of features are.
//!
//! Feature f of layer l writes `d[f, t]` to each target layer t >= l. Its write vector is all of
//! them in a row, with zeros for the targets below l, so that vectors of features of different
//! layers line up. Redundancy is the cosine of two write vectors,
//!
//! `R[f, g] = sum_t w[t] <d[f, t], d[g, t]> / sqrt(|f|^2 |g|^2)`, `|f|^2 = sum_t w[t] <d[f, t], d[f, t]>`,
//!
//! over the targets that both write to, each norm over all targets of its feature. So R is a Gram
//! matrix: symmetric, positive semidefinite, in [-1, 1]; 1 only for writes that are the same up to
//! a positive factor everywhere. Features that write nothing have R = 0 with all others.
//!
//! One target layer at a time: its rows are gathered by pread, packed and multiplied, so memory is
//! the matrix and one layer's rows. Each stripe of the matrix has one owner and targets are added
//! in order: the same bytes for any number of threads.

use crate::decoder::Decoder;
use crate::dump::{FloatType, Watch};
use crate::error::{Error, Result};
use crate::file::{room, zeros};
use crate::gram_kernel::{Bf16Kernel, F32Kernel, Kernel, MR};
use crate::workers::Workers;
use bytemuck::Zeroable;

/// Rows of the matrix that one owner works on at a time.
const STRIPE: usize = 8 * MR;

/// Features below which one thread is faster than several.
const SMALL: usize = 64;

/// Multiplications that take as long as reading one number from a slow disk.
const READ: usize = 256;

/// Multiplications that take as long as a division, or a number that is not in cache.
const DIVISION: usize = 16;

/// The decoders of a CLT by source layer; layers that no feature needs may be `None`.
pub type Decoders = [Option<Decoder>];

/// A feature: its layer and its row in that layer's decoder.
pub type Feature = (usize, usize);

/// Cosines of the write vectors of `features`.
///
/// `weights` has one number per target layer, at least 0; all 1 by default.
///
/// # Shapes
/// `[features.len(), features.len()]` float32, symmetric, 1 on the diagonal (0 for a feature that
/// writes nothing).
///
/// # Errors
/// A feature without decoder or row, decoders that do not fit each other, weights that are
/// negative or not finite; a file that ends too early; what `watch` returns.
///
/// # Memory
/// `4 M^2` bytes (`8 M^2` of features whose layers do not ascend) and the rows of one target layer
/// twice.
pub fn redundancy(
    decoders: &Decoders,
    features: &[Feature],
    weights: Option<&[f64]>,
    threads: Option<usize>,
    watch: &mut Watch<'_>,
) -> Result<Vec<f32>> {
    let weights = check_weights(decoders.len(), weights)?;
    let (d_model, all_bf16) = check(decoders, features)?;
    let workers = Workers::new(threads, features.len() < SMALL)?;
    // By layer, the features that write to a target are the first so many.
    let mut order: Vec<usize> = (0..features.len()).collect();
    order.sort_by_key(|&i| (features[i], i));
    let sorted: Vec<Feature> = order.iter().map(|&i| features[i]).collect();
    let job = Job { decoders, features: &sorted, d_model, weights: &weights, workers: &workers };
    let gram = match Bf16Kernel::detect().filter(|_| all_bf16) {
        Some(kernel) => job.gram(kernel, watch)?,
        None => job.gram(F32Kernel::detect(), watch)?,
    };
    let n_targets = weights.len() as u64;
    cosines(gram, &order, &workers, &mut || watch(n_targets, n_targets))
}

struct Job<'a> {
    decoders: &'a Decoders,
    features: &'a [Feature],
    d_model: usize,
    weights: &'a [f64],
    workers: &'a Workers,
}

impl Job<'_> {
    /// The lower triangle of the weighted Gram matrix, in the order of `features`.
    fn gram<K: Kernel>(&self, kernel: K, watch: &mut Watch<'_>) -> Result<Vec<f32>>
    where
        Decoder: Gather<K::Element>,
    {
        let m = self.features.len();
        let mut gram = zeros::<f32>(m.saturating_mul(m))?;
        let mut stripes: Vec<&mut [f32]> = gram.chunks_mut((STRIPE * m).max(1)).collect();
        let n_targets = self.weights.len() as u64;
        let mut panel = Panel::<K>::default();
        for (target, &weight) in self.weights.iter().enumerate() {
            let n = self.features.partition_point(|&(layer, _)| layer <= target);
            if n > 0 && weight > 0.0 {
                let mut pause = || watch(target as u64, n_targets);
                panel.gather(self, target, n, &mut pause)?;
                let panel = &panel;
                // The last stripes have the most to do: they go first.
                let count = n.div_ceil(STRIPE);
                stripes[..count].reverse();
                let (some, cost) = (&mut stripes[..count], STRIPE * n * self.d_model);
                self.workers.each_in_turns(some, cost, &mut pause, |i, stripe| {
                    panel.add_stripe(kernel, (count - 1 - i) * STRIPE, weight as f32, m, stripe);
                    Ok(())
                })?;
                stripes[..count].reverse();
            }
            watch(target as u64 + 1, n_targets)?;
        }
        Ok(gram)
    }
}

/// The rows that write to one target; its buffers serve all targets, since fresh pages cost more
/// than what is done with them.
struct Panel<K: Kernel> {
    n: usize,
    depth: usize,
    rows: Vec<K::Element>,
    packed: Vec<K::Element>,
}

impl<K: Kernel> Default for Panel<K> {
    fn default() -> Self {
        Self { n: 0, depth: 0, rows: Vec::new(), packed: Vec::new() }
    }
}

impl<K: Kernel> Panel<K>
where
    Decoder: Gather<K::Element>,
{
    fn gather(
        &mut self,
        job: &Job<'_>,
        target: usize,
        n: usize,
        pause: &mut dyn FnMut() -> Result<()>,
    ) -> Result<()> {
        (self.n, self.depth) = (n, job.d_model.next_multiple_of(K::DEPTH));
        let depth = self.depth;
        let rows = room(&mut self.rows, n.next_multiple_of(MR) * depth)?;
        rows[n * depth..].fill(K::Element::zeroed());
        let mut stripes: Vec<&mut [K::Element]> = rows.chunks_mut(STRIPE * depth).collect();
        let cost = STRIPE * depth * READ;
        job.workers.each_in_turns(&mut stripes, cost, pause, |i, stripe| {
            let features = &job.features[i * STRIPE..n.min((i + 1) * STRIPE)];
            for (&(layer, row), out) in features.iter().zip(stripe.chunks_mut(depth)) {
                if let Some(decoder) = &job.decoders[layer] {
                    let from = (target - layer) * job.d_model;
                    decoder.gather(row, from, &mut out[..job.d_model])?;
                }
            }
            Ok(())
        })?;
        let rows = &self.rows;
        let packed = room(&mut self.packed, n.next_multiple_of(K::NR) * depth)?;
        let mut groups: Vec<&mut [K::Element]> = packed.chunks_mut(K::NR * depth).collect();
        job.workers.each(&mut groups, |group, out| {
            let n_rows = K::NR.min(n - group * K::NR);
            for (k, out) in out.chunks_exact_mut(K::NR * K::DEPTH).enumerate() {
                for (j, out) in out.chunks_exact_mut(K::DEPTH).enumerate() {
                    if j < n_rows {
                        let from = (group * K::NR + j) * depth + k * K::DEPTH;
                        out.copy_from_slice(&rows[from..from + K::DEPTH]);
                    } else {
                        out.fill(K::Element::zeroed());
                    }
                }
            }
            Ok(())
        })
    }

    /// Add the rows `first ..` of the Gram matrix, up to the diagonal, to a stripe of width `m`.
    fn add_stripe(&self, kernel: K, first: usize, weight: f32, m: usize, stripe: &mut [f32]) {
        let last = self.n.min(first + STRIPE);
        let mut tile = vec![0.0f32; MR * K::NR];
        for group in 0..last.div_ceil(K::NR) {
            let b = &self.packed[group * K::NR * self.depth..][..K::NR * self.depth];
            for top in (first..last).step_by(MR) {
                if top + MR <= group * K::NR {
                    continue;
                }
                let row = |i: usize| &self.rows[(top + i) * self.depth..][..self.depth];
                kernel.tile(std::array::from_fn(row), b, &mut tile);
                for i in top..last.min(top + MR) {
                    let columns = group * K::NR..(i + 1).min((group + 1) * K::NR);
                    let sums = &tile[(i - top) * K::NR..];
                    let out = &mut stripe[(i - first) * m..][..m];
                    for (sum, j) in sums.iter().zip(columns) {
                        out[j] += weight * sum;
                    }
                }
            }
        }
    }
}

/// Part of a decoder row as elements of a kernel.
trait Gather<T> {
    fn gather(&self, row: usize, from: usize, out: &mut [T]) -> Result<()>;
}

impl Gather<f32> for Decoder {
    fn gather(&self, row: usize, from: usize, out: &mut [f32]) -> Result<()> {
        self.part(row, from, out)
    }
}

impl Gather<u16> for Decoder {
    fn gather(&self, row: usize, from: usize, out: &mut [u16]) -> Result<()> {
        self.part_bf16(row, from, out)
    }
}

/// Divide the lower triangle by the norms, mirror it, and put the features back in the caller's
/// order. In place where that is the order already, as it is of a pool: ids ascend by layer.
fn cosines(
    mut gram: Vec<f32>,
    order: &[usize],
    workers: &Workers,
    pause: &mut dyn FnMut() -> Result<()>,
) -> Result<Vec<f32>> {
    let m = order.len();
    let norms: Vec<f64> = (0..m).map(|i| f64::from(gram[i * m + i]).sqrt()).collect();
    let mut rows: Vec<&mut [f32]> = gram.chunks_mut(m.max(1)).collect();
    workers.each_in_turns(&mut rows, m * DIVISION, pause, |i, row| {
        for (j, out) in row[..=i].iter_mut().enumerate() {
            let size = norms[i] * norms[j];
            *out = match (size > 0.0, i == j) {
                (false, _) => 0.0,
                (true, true) => 1.0,
                (true, false) => (f64::from(*out) / size).clamp(-1.0, 1.0) as f32,
            };
        }
        Ok(())
    })?;
    mirror(&mut gram, m, pause)?;
    if order.is_sorted() { Ok(gram) } else { reordered(&gram, order, workers, pause) }
}

/// Copy the lower triangle onto the upper one, square by square: a column at a time would touch a
/// line of cache for every number.
fn mirror(matrix: &mut [f32], m: usize, pause: &mut dyn FnMut() -> Result<()>) -> Result<()> {
    const SQUARE: usize = 32;
    for top in (0..m).step_by(SQUARE) {
        pause()?;
        for left in (0..=top).step_by(SQUARE) {
            for i in top..m.min(top + SQUARE) {
                for j in left..i.min(left + SQUARE) {
                    matrix[j * m + i] = matrix[i * m + j];
                }
            }
        }
    }
    Ok(())
}

/// A symmetric matrix of features in the order `order`, in the caller's.
fn reordered(
    matrix: &[f32],
    order: &[usize],
    workers: &Workers,
    pause: &mut dyn FnMut() -> Result<()>,
) -> Result<Vec<f32>> {
    let m = order.len();
    let mut place = vec![0; m];
    for (sorted, &original) in order.iter().enumerate() {
        place[original] = sorted;
    }
    let mut out = zeros::<f32>(m.saturating_mul(m))?;
    let mut rows: Vec<&mut [f32]> = out.chunks_mut(m.max(1)).collect();
    // The numbers of a row lie apart, so each may cost a miss of the cache.
    workers.each_in_turns(&mut rows, m * DIVISION, pause, |f, row| {
        let from = &matrix[place[f] * m..][..m];
        row.iter_mut().zip(&place).for_each(|(out, &g)| *out = from[g]);
        Ok(())
    })?;
    Ok(out)
}

fn check_weights(n_layers: usize, weights: Option<&[f64]>) -> Result<Vec<f64>> {
    let Some(weights) = weights else { return Ok(vec![1.0; n_layers]) };
    if weights.len() != n_layers {
        let message = format!("{} weights for {n_layers} target layers", weights.len());
        return Err(Error::argument(message));
    }
    match weights.iter().position(|w| !(w.is_finite() && *w >= 0.0)) {
        None => Ok(weights.to_vec()),
        Some(i) => Err(Error::argument(format!(
            "weight of target layer {i} is {}, must be finite and at least 0",
            weights[i]
        ))),
    }
}

/// The features have rows and all decoders one width; that width, and whether all are bf16.
fn check(decoders: &Decoders, features: &[Feature]) -> Result<(usize, bool)> {
    let n_layers = decoders.len();
    let (mut d_model, mut all_bf16) = (None, true);
    for (layer, decoder) in decoders.iter().enumerate() {
        let Some(decoder) = decoder else { continue };
        let want =
            [n_layers - layer, d_model.unwrap_or(decoder.row_shape().last().map_or(0, |d| *d))];
        if decoder.row_shape() != want {
            let message = format!(
                "has rows {:?}, must be {want:?} (n_layers - {layer}, d_model)",
                decoder.row_shape()
            );
            return Err(decoder.wrong(message));
        }
        d_model = Some(want[1]);
        all_bf16 &= decoder.dtype() == FloatType::BF16;
    }
    for &(layer, row) in features {
        let decoder = decoders.get(layer).and_then(Option::as_ref);
        let n_rows = decoder.map_or(0, Decoder::n_rows);
        if row >= n_rows {
            let message = format!("feature L{layer}:{row}: layer {layer} has {n_rows} features");
            return Err(Error::argument(message));
        }
    }
    Ok((d_model.unwrap_or(0), all_bf16))
}
