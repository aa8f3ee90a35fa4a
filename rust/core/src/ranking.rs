//! The best features of a dump, exactly, with filters.

use crate::cancel::Cancel;
use crate::dump::{Dump, Watch};
use crate::error::{Error, Result};
use crate::feature::Scored;
use crate::score::{RankBy, Scores, scores};
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
    let allowed = Allowed::new(dump, filter, threads, watch)?;
    let scores = scores(dump, rank_by, threads, watch)?;
    let mask: Vec<bool> =
        (0..scores.len()).map(|id| scores.get(id).is_some() && allowed.has(id)).collect();
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

/// A [`Filter`] made fast to ask.
struct Allowed {
    n_features: u64,
    layers: Option<Vec<u64>>,
    features: Option<Vec<u32>>,
    counts: Option<(Scores, f64)>,
}

impl Allowed {
    fn new(
        dump: &Dump,
        filter: &Filter,
        threads: Option<usize>,
        watch: &mut Watch<'_>,
    ) -> Result<Self> {
        let layers = filter.layers.as_ref().map(|l| check_layers(dump, l)).transpose()?;
        let features = filter.features.as_ref().map(|ids| dump.check_features(ids)).transpose()?;
        let counts = match filter.min_prompts {
            Some(min) => Some((scores(dump, RankBy::Count, threads, watch)?, min as f64)),
            None => None,
        };
        Ok(Self { n_features: dump.manifest().n_features, layers, features, counts })
    }

    /// Whether nothing is filtered.
    fn all(&self) -> bool {
        self.layers.is_none() && self.features.is_none() && self.counts.is_none()
    }

    fn has(&self, id: usize) -> bool {
        let layer = id as u64 / self.n_features;
        self.layers.as_ref().is_none_or(|layers| layers.binary_search(&layer).is_ok())
            && self.features.as_ref().is_none_or(|ids| ids.binary_search(&(id as u32)).is_ok())
            && self
                .counts
                .as_ref()
                .is_none_or(|(counts, min)| counts.get(id).unwrap_or(0.0) >= *min)
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
