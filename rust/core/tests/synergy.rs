//! The strongest synergies of every row against their naive version.
#![allow(clippy::unwrap_used)]

#[path = "common/cases.rs"]
mod cases;

use cases::cases;
use pie_fast_core::synergy::{CsrArrays, Importances, top_per_row};
use pie_fast_core::{Cancel, naive};
use proptest::prelude::*;

/// Few values, so that magnitudes tie, with signs, zeros and the smallest numbers.
fn number() -> impl Strategy<Value = f32> {
    prop_oneof![
        4 => (-4_i8..=4).prop_map(|x| f32::from(x) * 0.5),
        2 => -2.0_f32..2.0,
        1 => prop::sample::select(vec![0.0, -0.0, 1e-45, -1e-45, f32::MIN_POSITIVE, 1e30, -1e30]),
    ]
}

/// Packed joint importances and single ones.
fn pairs() -> impl Strategy<Value = (Vec<f32>, Vec<f64>)> {
    let n = prop_oneof![8 => 0_usize..40, 1 => 40_usize..150];
    let single = prop_oneof![Just(0.0), number().prop_map(f64::from)];
    n.prop_flat_map(move |n| {
        let n_pairs = n * n.saturating_sub(1) / 2;
        (prop::collection::vec(number(), n_pairs), prop::collection::vec(single.clone(), n))
    })
}

fn check(joint: &[f32], single: &[f64], t: usize) -> Result<(), TestCaseError> {
    let wide: Vec<f64> = joint.iter().map(|&x| f64::from(x)).collect();
    for (clipped, symmetric) in [(false, false), (false, true), (true, false), (true, true)] {
        let want = parts(naive::top_per_row(&wide, single, t, clipped, symmetric));
        let cancel = Cancel::new();
        for threads in [1, 3] {
            let narrow = Importances { joint, single, clipped };
            let got = top_per_row(narrow, t, symmetric, Some(threads), &cancel).unwrap();
            prop_assert_eq!(&parts(got), &want);
            let wide = Importances { joint: &wide[..], single, clipped };
            let got = top_per_row(wide, t, symmetric, Some(threads), &cancel).unwrap();
            prop_assert_eq!(&parts(got), &want);
        }
    }
    Ok(())
}

fn parts(csr: CsrArrays) -> (Vec<i64>, Vec<i32>, Vec<u32>) {
    let bits = csr.values.iter().map(|w| w.to_bits()).collect();
    (csr.indptr, csr.indices, bits)
}

proptest! {
    #![proptest_config(cases(1200))]

    #[test]
    fn the_strongest_of_each_row_are_a_sort((joint, single) in pairs(), some in 0_usize..40) {
        let n = single.len();
        // None, one, all but one of the others, all of them, more than there are.
        let edges = [0, 1, n.saturating_sub(2), n.saturating_sub(1), n, n + 1];
        let t = edges.get(some).copied().unwrap_or_else(|| some - edges.len());
        check(&joint, &single, t)?;
    }
}

proptest! {
    #![proptest_config(cases(12))]

    /// From 512 candidates on rows are sampled for thresholds and threads share the panels.
    #[test]
    fn sampled_rows_are_a_sort_too(
        n in 510_usize..600,
        few in prop::collection::vec(number(), 1..400),
        step in 1_usize..1000,
        t in prop_oneof![0_usize..4, 4_usize..80],
    ) {
        let joint: Vec<f32> = (0..n * (n - 1) / 2).map(|p| few[p * step % few.len()]).collect();
        let single: Vec<f64> = (0..n).map(|i| f64::from(few[i * 7 % few.len()]) / 4.0).collect();
        check(&joint, &single, t)?;
    }
}

/// The strongest t of one row, by a sort.
fn row_by_sort(
    joint: &[f32],
    single: &[f64],
    row: usize,
    t: usize,
    clipped: bool,
) -> Vec<(i32, u32)> {
    let n = single.len();
    let value = |j: usize| {
        let (low, high) = (row.min(j), row.max(j));
        let joint = f64::from(joint[low * (2 * n - low - 1) / 2 + high - low - 1]);
        let w = ((joint - single[low]) - single[high]) as f32;
        if clipped { w.max(0.0) } else { w }
    };
    let others = (0..n).filter(|&j| j != row).map(|j| (j as i32, value(j)));
    let mut all: Vec<(i32, f32)> = others.filter(|&(_, w)| w != 0.0).collect();
    all.sort_by(|a, b| b.1.abs().total_cmp(&a.1.abs()));
    all.truncate(t);
    all.sort_by_key(|&(j, _)| j);
    all.iter().map(|&(j, w)| (j, w.to_bits())).collect()
}

proptest! {
    #![proptest_config(cases(1000))]

    /// The same path as above: every row is made, a few are compared.
    #[test]
    fn a_few_sampled_rows_are_a_sort(
        n in 512_usize..530,
        few in prop::collection::vec(number(), 1..400),
        step in 1_usize..1000,
        t in 0_usize..8,
        clipped in any::<bool>(),
        rows in prop::collection::vec(0_usize..512, 6),
    ) {
        let joint: Vec<f32> = (0..n * (n - 1) / 2).map(|p| few[p * step % few.len()]).collect();
        let single: Vec<f64> = (0..n).map(|i| f64::from(few[i * 7 % few.len()]) / 4.0).collect();
        let pairs = Importances { joint: &joint[..], single: &single, clipped };
        let got = top_per_row(pairs, t, false, Some(1 + n % 2), &Cancel::new()).unwrap();
        for row in rows {
            let at = got.indptr[row] as usize..got.indptr[row + 1] as usize;
            let bits = got.values[at.clone()].iter().map(|w| w.to_bits());
            let found: Vec<(i32, u32)> = got.indices[at].iter().copied().zip(bits).collect();
            prop_assert_eq!(found, row_by_sort(&joint, &single, row, t, clipped), "row {}", row);
        }
    }
}

/// Rows of the last panel are sampled at every fourth column, where all of their large pairs are:
/// fewer than t pass, and the rest is looked for among the small ones.
#[test]
fn a_sample_that_promised_too_much_is_made_good() {
    let (n, t) = (1024, 128);
    let value = |low: usize, high: usize| {
        let noise = (low * 7919 + high * 104_729) % 4093;
        if low.is_multiple_of(4) { 8192 + noise } else { 1 + noise }
    };
    let upper = (0..n).flat_map(|i| (i + 1..n).map(move |j| value(i, j) as f32));
    let (joint, single): (Vec<f32>, _) = (upper.collect(), vec![0.0; n]);
    let pairs = Importances { joint: &joint[..], single: &single, clipped: false };
    let got = top_per_row(pairs, t, false, None, &Cancel::new()).unwrap();
    for row in 960..n {
        let at = got.indptr[row] as usize..got.indptr[row + 1] as usize;
        let bits = got.values[at.clone()].iter().map(|w| w.to_bits());
        let found: Vec<(i32, u32)> = got.indices[at].iter().copied().zip(bits).collect();
        assert_eq!(found, row_by_sort(&joint, &single, row, t, false), "row {row}");
    }
}
