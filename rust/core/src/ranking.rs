//! The best features of a dump, exactly, with filters.

use crate::cancel::Cancel;
use crate::dump::{Dump, Watch};
use crate::error::{Error, Result};
use crate::feature::Scored;
use crate::score::{RankBy, score, scores};
use crate::topk;

/// Which features may be ranked; the default lets all pass. Features without entries never do.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Only these layers.
    pub layers: Option<Vec<u64>>,
    /// Only these global ids.
    pub features: Option<Vec<i64>>,
    /// Only features that are active in at least so many prompts.
    pub min_prompts: Option<u64>,
    /// The best `k` of each layer (fewer where a layer has fewer), not of all.
    pub per_layer: bool,
}

/// The `k` best features by score, ties to the smaller id; with `per_layer` the `k` best of each
/// layer, layer by layer.
///
/// # Errors
/// `k` above the number of features that have entries and pass the filter; layers or ids that the
/// dump does not have; and as [`crate::score::score`].
pub fn top_k(
    dump: &Dump,
    k: usize,
    rank_by: RankBy,
    filter: &Filter,
    threads: Option<usize>,
    watch: &mut Watch<'_>,
) -> Result<Vec<Scored>> {
    let mut allowed = Allowed::new(dump, filter)?;
    let counts = filter.min_prompts.map(|_| score(dump, RankBy::Count, threads, watch));
    let counts = counts.transpose()?;
    allowed.counts = counts.as_deref();
    let scores = scores(dump, rank_by, threads, watch)?;
    let has = (0..scores.len()).map(|id| scores.get(id).is_some()).collect();
    best(k, &scores.into_dense()?, has, &allowed, threads, &Cancel::new())
}

/// As [`top_k`], from scores that were added up elsewhere.
///
/// # Shapes
/// `scores`, `has_entry` and `counts` (scores by [`RankBy::Count`], where `filter.min_prompts` is
/// given) have one element per global id.
///
/// # Errors
/// As [`top_k`], other lengths, and `cancel`.
pub fn rank(
    dump: &Dump,
    k: usize,
    (scores, has_entry): (&[f64], &[bool]),
    counts: Option<&[f64]>,
    filter: &Filter,
    threads: Option<usize>,
    cancel: &Cancel,
) -> Result<Vec<Scored>> {
    let mut allowed = Allowed::new(dump, filter)?;
    let lengths = [scores.len(), has_entry.len(), counts.map_or(scores.len(), <[f64]>::len)];
    if lengths.iter().any(|&n| n as u64 != dump.n_ids()) {
        let message = format!("{lengths:?} scores for {} features", dump.n_ids());
        return Err(Error::argument(message));
    }
    if filter.min_prompts.is_some() != counts.is_some() {
        return Err(Error::argument("counts and min_prompts need each other"));
    }
    allowed.counts = counts;
    best(k, scores, has_entry.to_vec(), &allowed, threads, cancel)
}

fn best(
    k: usize,
    scores: &[f64],
    has_entry: Vec<bool>,
    allowed: &Allowed<'_>,
    threads: Option<usize>,
    cancel: &Cancel,
) -> Result<Vec<Scored>> {
    /// Features between two looks at the flag.
    const STRETCH: usize = 1 << 20;
    let mut mask = has_entry;
    for (i, part) in mask.chunks_mut(STRETCH).enumerate() {
        cancel.check()?;
        let ids = i * STRETCH..;
        part.iter_mut().zip(ids).for_each(|(is, id)| *is = *is && allowed.has(id));
    }
    let only = topk::Filter { mask: Some(&mask), finite: true };
    if allowed.filter.per_layer {
        let n_features = allowed.n_features as usize;
        let k = k.min(n_features);
        let layers = topk::top_k_per_layer(scores, k, n_features, only, threads, cancel)?;
        return Ok(layers.concat());
    }
    let candidates = mask.iter().filter(|&&is| is).count();
    if candidates < k {
        let which = if allowed.all() { "" } else { " that pass the filters" };
        let message = format!("budget {k} exceeds the {candidates} active features{which}");
        return Err(Error::Budget(message));
    }
    topk::top_k(scores, k, only, threads, cancel)
}

/// Global ids of the features that have an activation other than 0, ascending.
///
/// # Errors
/// As [`crate::score::score`].
pub fn active_features(
    dump: &Dump,
    threads: Option<usize>,
    watch: &mut Watch<'_>,
) -> Result<Vec<i64>> {
    let counts = scores(dump, RankBy::Count, threads, watch)?;
    let active = |&id: &usize| counts.get(id).is_some_and(|count| count > 0.0);
    Ok((0..counts.len()).filter(active).map(|id| id as i64).collect())
}

/// A [`Filter`] made fast to ask.
struct Allowed<'a> {
    filter: &'a Filter,
    n_features: u64,
    layers: Option<Vec<u64>>,
    features: Option<Vec<u32>>,
    /// Prompts in which each feature is active, where `filter.min_prompts` asks.
    counts: Option<&'a [f64]>,
}

impl<'a> Allowed<'a> {
    fn new(dump: &Dump, filter: &'a Filter) -> Result<Self> {
        let layers = filter.layers.as_ref().map(|l| check_layers(dump, l)).transpose()?;
        let features = filter.features.as_ref().map(|ids| dump.check_features(ids)).transpose()?;
        let n_features = dump.manifest().n_features;
        Ok(Self { filter, n_features, layers, features, counts: None })
    }

    /// Whether nothing is filtered.
    fn all(&self) -> bool {
        self.layers.is_none() && self.features.is_none() && self.counts.is_none()
    }

    fn has(&self, id: usize) -> bool {
        let layer = id as u64 / self.n_features;
        let min = self.filter.min_prompts.unwrap_or(0) as f64;
        self.layers.as_ref().is_none_or(|layers| layers.binary_search(&layer).is_ok())
            && self.features.as_ref().is_none_or(|ids| ids.binary_search(&(id as u32)).is_ok())
            && self.counts.is_none_or(|counts| counts[id] >= min)
    }
}

/// Layers handed in by a caller, checked and ascending.
fn check_layers(dump: &Dump, layers: &[u64]) -> Result<Vec<u64>> {
    let n_layers = dump.manifest().n_layers;
    if let Some(layer) = layers.iter().find(|&&layer| layer >= n_layers) {
        return Err(Error::argument(format!("layer {layer} is outside [0, {n_layers})")));
    }
    let mut layers = layers.to_vec();
    layers.sort_unstable();
    Ok(layers)
}
