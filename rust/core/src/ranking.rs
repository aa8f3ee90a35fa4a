//! The best features of a dump, exactly, with filters.

use crate::cancel::Cancel;
use crate::dump::{Dump, Watch};
use crate::error::{Error, Result};
use crate::feature::Scored;
use crate::score::{Folded, RankBy, Scores, scores};
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
    let allowed = Allowed::new(dump, filter)?;
    let counts = match filter.min_prompts {
        Some(_) => Some(scores(dump, RankBy::Count, threads, watch)?),
        None => None,
    };
    best(dump, k, scores(dump, rank_by, threads, watch)?, counts, &allowed, threads)
}

/// As [`top_k`], from sums that were made block by block.
///
/// `counts` are those of [`RankBy::Count`], needed where the filter has a number of prompts.
///
/// # Errors
/// As [`top_k`]; sums of another number of features.
pub fn top_k_of(
    dump: &Dump,
    k: usize,
    sums: &Folded,
    counts: Option<&Folded>,
    filter: &Filter,
    threads: Option<usize>,
) -> Result<Vec<Scored>> {
    let allowed = Allowed::new(dump, filter)?;
    let n_prompts = dump.n_prompts();
    let counts = match (filter.min_prompts, counts) {
        (None, _) => None,
        (Some(_), Some(counts)) => Some(counts.scores(n_prompts, threads)?),
        (Some(_), None) => return Err(Error::argument("min_prompts needs counts, there are none")),
    };
    let scores = sums.scores(n_prompts, threads)?;
    for found in [Some(&scores), counts.as_ref()].into_iter().flatten() {
        if found.len() as u64 != dump.n_ids() {
            let message =
                format!("sums of {} features, the dump has {}", found.len(), dump.n_ids());
            return Err(Error::argument(message));
        }
    }
    best(dump, k, scores, counts, &allowed, threads)
}

fn best(
    dump: &Dump,
    k: usize,
    scores: Scores,
    counts: Option<Scores>,
    allowed: &Allowed<'_>,
    threads: Option<usize>,
) -> Result<Vec<Scored>> {
    let filter = allowed.filter;
    let enough = |id: usize| match (&counts, filter.min_prompts) {
        (Some(counts), Some(min)) => counts.get(id).unwrap_or(0.0) >= min as f64,
        _ => true,
    };
    let mask: Vec<bool> = (0..scores.len())
        .map(|id| scores.get(id).is_some() && allowed.has(id) && enough(id))
        .collect();
    let scores = scores.into_dense()?;
    let only = topk::Filter { mask: Some(&mask), finite: true };
    let cancel = Cancel::new();
    if filter.per_layer {
        let n_features = dump.manifest().n_features as usize;
        let k = k.min(n_features);
        let layers = topk::top_k_per_layer(&scores, k, n_features, only, threads, &cancel)?;
        return Ok(layers.concat());
    }
    let candidates = mask.iter().filter(|&&is| is).count();
    if candidates < k {
        let which = if allowed.all() { "" } else { " that pass the filters" };
        let message = format!("budget {k} exceeds the {candidates} active features{which}");
        return Err(Error::Budget(message));
    }
    topk::top_k(&scores, k, only, threads, &cancel)
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

/// A [`Filter`] checked, and its lists made fast to ask.
struct Allowed<'a> {
    filter: &'a Filter,
    n_features: u64,
    layers: Option<Vec<u64>>,
    features: Option<Vec<u32>>,
}

impl<'a> Allowed<'a> {
    fn new(dump: &Dump, filter: &'a Filter) -> Result<Self> {
        let layers = filter.layers.as_ref().map(|l| check_layers(dump, l)).transpose()?;
        let features = filter.features.as_ref().map(|ids| dump.check_features(ids)).transpose()?;
        Ok(Self { filter, n_features: dump.manifest().n_features, layers, features })
    }

    /// Whether nothing is filtered.
    fn all(&self) -> bool {
        self.layers.is_none() && self.features.is_none() && self.filter.min_prompts.is_none()
    }

    /// Whether the lists have a feature.
    fn has(&self, id: usize) -> bool {
        let layer = id as u64 / self.n_features;
        self.layers.as_ref().is_none_or(|layers| layers.binary_search(&layer).is_ok())
            && self.features.as_ref().is_none_or(|ids| ids.binary_search(&(id as u32)).is_ok())
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
