//! Scores by the definition, one entry after the other.

use crate::score::RankBy;
use std::collections::BTreeMap;

/// One prompt's entries: (feature, activation, attribution) in file order.
pub type Prompt = Vec<(u32, f32, f32)>;

/// Scores of `n_ids` features; 0.0 for features without entries.
#[must_use]
pub fn score(prompts: &[Prompt], n_ids: usize, rank_by: RankBy) -> Vec<f64> {
    let mut totals = vec![0.0f64; n_ids];
    for block in prompts.chunks(256) {
        let mut sums = vec![0.0f64; n_ids];
        for prompt in block {
            for (feature, value) in of_prompt(prompt, rank_by) {
                let sum = &mut sums[feature as usize];
                *sum = if rank_by == RankBy::Max { sum.max(value) } else { *sum + value };
            }
        }
        for (total, sum) in totals.iter_mut().zip(sums) {
            *total = if rank_by == RankBy::Max { total.max(sum) } else { *total + sum };
        }
    }
    let n_prompts = prompts.len() as f64;
    for total in &mut totals {
        *total = match rank_by {
            RankBy::Max | RankBy::Count => *total,
            _ if prompts.is_empty() => 0.0,
            RankBy::Abs => (*total / n_prompts).abs(),
            _ => *total / n_prompts + 0.0,
        };
    }
    totals
}

/// One number per feature of a prompt.
fn of_prompt(prompt: &Prompt, rank_by: RankBy) -> BTreeMap<u32, f64> {
    let mut numbers = BTreeMap::new();
    for &(feature, activation, attribution) in prompt {
        let number = numbers.entry(feature).or_insert(0.0f64);
        let a = f64::from(activation);
        match rank_by {
            RankBy::Signed | RankBy::Abs | RankBy::MeanAbs => *number += f64::from(attribution),
            RankBy::Magnitude => *number += a.abs(),
            RankBy::Max => *number = number.max(a.abs()),
            RankBy::Count => *number = if a == 0.0 { *number } else { 1.0 },
        }
    }
    if rank_by == RankBy::MeanAbs {
        numbers.values_mut().for_each(|number| *number = number.abs());
    }
    numbers
}
