//! Greedy selection and top-k against their naive versions.
#![allow(clippy::unwrap_used)]

#[path = "common/cases.rs"]
mod cases;

use cases::cases;
use pie_fast_core::select::dense::Dense;
use pie_fast_core::select::sparse::Csr;
use pie_fast_core::select::{
    Bonus, Limits, Synergy, explain, greedy_select, improve_by_swaps, select_many,
};
use pie_fast_core::simd::Kernel;
use pie_fast_core::topk::{Filter, top_k};
use pie_fast_core::{Cancel, naive};
use proptest::prelude::*;

/// Numbers that collide, cancel, and differ in the last bit.
fn number() -> impl Strategy<Value = f32> {
    prop_oneof![
        4 => (-4_i8..=4).prop_map(|x| f32::from(x) * 0.5),
        4 => -2.0_f32..2.0,
        1 => prop::sample::select(vec![
            0.0, -0.0, 1e-45, -1e-45, f32::MIN_POSITIVE, 1e30, -1e30, 0.1, 0.3, 1.0 + f32::EPSILON,
        ]),
    ]
}

fn problem() -> impl Strategy<Value = (Vec<f32>, Vec<Vec<f32>>, usize)> {
    problem_of(1..90)
}

/// Scores, a density and the upper triangle of a matrix, and k.
fn problem_of(
    sizes: std::ops::Range<usize>,
) -> impl Strategy<Value = (Vec<f32>, Vec<Vec<f32>>, usize)> {
    (sizes, 0.0_f64..1.0).prop_flat_map(|(m, density)| {
        let entry = prop_oneof![
            1 => Just(None),
            3 => (number(), 0.0_f64..1.0).prop_map(move |(x, u)| (u < density).then_some(x)),
        ];
        let scores = prop::collection::vec(number(), m);
        let upper = prop::collection::vec(entry, m * m);
        (scores, upper, 0..=m).prop_map(move |(scores, upper, k)| {
            let mut w = vec![vec![0.0; m]; m];
            for i in 0..m {
                for j in i..m {
                    let x = upper[i * m + j].unwrap_or(0.0);
                    w[i][j] = x;
                    w[j][i] = x;
                }
            }
            (scores, w, k)
        })
    })
}

/// CSR without the zeros, the entries of each row in a scrambled order.
fn csr(w: &[Vec<f32>]) -> (Vec<i64>, Vec<i32>, Vec<f32>) {
    let (mut indptr, mut indices, mut values) = (vec![0], vec![], vec![]);
    for (i, row) in w.iter().enumerate() {
        let mut columns: Vec<usize> = (0..row.len()).filter(|&j| row[j] != 0.0).collect();
        columns.sort_by_key(|&j| (j + i) * 7919 % 101);
        indices.extend(columns.iter().map(|&j| j as i32));
        values.extend(columns.iter().map(|&j| row[j]));
        indptr.push(indices.len() as i64);
    }
    (indptr, indices, values)
}

fn widen(xs: &[f32]) -> Vec<f64> {
    xs.iter().map(|&x| f64::from(x)).collect()
}

proptest! {
    #![proptest_config(cases(1500))]

    #[test]
    fn greedy_is_the_rule((scores, w, k) in problem(), sum in any::<bool>()) {
        let (m, cancel, none) = (scores.len(), Cancel::new(), Limits::default());
        let bonus = if sum { Bonus::Sum } else { Bonus::Mean };
        let (wide, flat) = (widen(&scores), w.concat());
        let (flat_wide, (indptr, indices, values)) = (widen(&flat), csr(&w));
        let want =
            naive::greedy_select(&wide, |f, s| f64::from(w[f][s]), k, bonus).unwrap();

        let fast = Dense::new(&flat, m).unwrap();
        fast.check(Some(2), &cancel).unwrap();
        prop_assert_eq!(&greedy_select(&scores, &fast, k, bonus, none, &cancel).unwrap(), &want);
        let plain = fast.with_kernel(Kernel::plain());
        prop_assert_eq!(&greedy_select(&wide, &plain, k, bonus, none, &cancel).unwrap(), &want);
        let double = Dense::new(&flat_wide, m).unwrap();
        prop_assert_eq!(&greedy_select(&wide, &double, k, bonus, none, &cancel).unwrap(), &want);

        let sparse = Csr::new(&indptr, &indices, &values).unwrap();
        sparse.check(Some(2), &cancel).unwrap();
        prop_assert_eq!(&greedy_select(&scores, &sparse, k, bonus, none, &cancel).unwrap(), &want);
        let prefix = greedy_select(&wide, &sparse, k / 2, bonus, none, &cancel).unwrap();
        prop_assert_eq!(&prefix.ids[..], &want.ids[..k / 2]);

        let twice = [wide.clone(), wide.clone()].concat();
        for threads in [1, 3] {
            let many = select_many(&twice, 2, &fast, k, bonus, Some(threads), &cancel).unwrap();
            prop_assert_eq!(&many, &[want.ids.clone(), want.ids.clone()].concat());
        }
        let steps = explain(&scores, &sparse, k, bonus, none, &cancel).unwrap();
        prop_assert_eq!(&steps, &explain(&wide, &double, k, bonus, none, &cancel).unwrap());
        for (step, (&id, &gain)) in steps.iter().zip(want.ids.iter().zip(&want.gains)) {
            prop_assert_eq!((step.id as i64, step.gain), (id, gain));
        }
        for (step, next) in steps.iter().zip(steps.iter().skip(1)) {
            let (id, value) = step.runner_up.unwrap();
            prop_assert!(value <= step.gain && id != step.id && id < m);
            // What comes next was at most second best before, or rose by the last bonus.
            prop_assert!(next.id == id || next.gain.is_finite());
        }
    }

    #[test]
    fn limits_are_those_of_the_rule_on_what_is_left(
        (scores, w, k) in problem(),
        layer_of in prop::collection::vec(0_i64..4, 90),
        out in prop::collection::vec(any::<bool>(), 90),
        limit in 1_usize..20,
    ) {
        let (m, cancel) = (scores.len(), Cancel::new());
        let exclude: Vec<i64> = (0..m).filter(|&f| out[f]).map(|f| f as i64).collect();
        let layers = &layer_of[..m];
        let limits = Limits { exclude: &exclude, per_layer: Some((layers, limit)), include: &[] };
        let flat = w.concat();
        let dense = Dense::new(&flat, m).unwrap();
        let (indptr, indices, values) = csr(&w);
        let sparse = Csr::new(&indptr, &indices, &values).unwrap();
        let a = greedy_select(&scores, &dense, k, Bonus::Mean, limits, &cancel);
        let b = greedy_select(&scores, &sparse, k, Bonus::Mean, limits, &cancel);
        prop_assert_eq!(a.as_ref().ok(), b.as_ref().ok());
        let free: usize = (0..4)
            .map(|l| (0..m).filter(|&f| layers[f] == l && !out[f]).count().min(limit))
            .sum();
        prop_assert_eq!(a.is_ok(), k <= free);
        let Ok(a) = a else { return Ok(()) };
        for l in 0..4 {
            let n = a.ids.iter().filter(|&&f| layers[f as usize] == l).count();
            prop_assert!(n <= limit);
        }
        prop_assert!(a.ids.iter().all(|&f| !out[f as usize]));
        // Forced along the whole selection, the gains are the same.
        let forced = Limits { include: &a.ids, ..Limits::default() };
        let of_sparse = greedy_select(&scores, &sparse, k, Bonus::Mean, forced, &cancel).unwrap();
        let of_dense = greedy_select(&scores, &dense, k, Bonus::Mean, forced, &cancel).unwrap();
        prop_assert_eq!((&a, &a), (&of_sparse, &of_dense));
    }

    #[test]
    fn swaps_after_greedy_are_the_rule(
        (scores, w, k) in problem_of(0..25),
        sum in any::<bool>(),
        clipped in any::<bool>(),
        max_swaps in prop_oneof![0_usize..3, Just(1000)],
        layer_of in prop::collection::vec(0_i64..4, 25),
        out in prop::collection::vec(prop::bool::weighted(0.1), 25),
        limit in 1_usize..20,
        keep in 0_usize..3,
    ) {
        let (m, cancel) = (scores.len(), Cancel::new());
        let bonus = if sum { Bonus::Sum } else { Bonus::Mean };
        let flat: Vec<f32> = w.concat().iter().map(|&x| if clipped { x.max(0.0) } else { x }).collect();
        let w: Vec<Vec<f32>> = (0..m).map(|f| flat[f * m..][..m].to_vec()).collect();
        let (wide, synergy) = (widen(&scores), |f: usize, s: usize| f64::from(w[f][s]));
        let dense = Dense::new(&flat, m).unwrap();
        let (indptr, indices, values) = csr(&w);
        let sparse = Csr::new(&indptr, &indices, &values).unwrap();
        let exclude: Vec<i64> = (0..m).filter(|&f| out[f]).map(|f| f as i64).collect();
        let layers = &layer_of[..m];

        for limited in [false, true] {
            let per_layer = limited.then_some((layers, limit));
            let exclude = if limited { &exclude[..] } else { &[] };
            let limits = Limits { exclude, per_layer, include: &[] };
            let Ok(start) = greedy_select(&scores, &dense, k, bonus, limits, &cancel) else {
                prop_assert!(limited);
                continue;
            };
            let include = if limited { &start.ids[..keep.min(k)] } else { &[] };
            let limits = Limits { include, ..limits };
            let allowed = |chosen: &[usize], g: usize, f: usize| {
                let others = chosen.iter().filter(|&&s| s != g && layers[s] == layers[f]).count();
                !limited || (others < limit && !out[f] && !include.contains(&(g as i64)))
            };
            let want =
                naive::improve_by_swaps(&wide, synergy, &start.ids, bonus, allowed, max_swaps);
            prop_assert!(want.objective.0 <= want.objective.1);
            let ids = &start.ids;
            let got = improve_by_swaps(&scores, &dense, ids, bonus, limits, max_swaps, &cancel);
            prop_assert_eq!(&got.unwrap(), &want);
            let got = improve_by_swaps(&wide, &sparse, ids, bonus, limits, max_swaps, &cancel);
            prop_assert_eq!(&got.unwrap(), &want);
        }
    }

    /// Greedy leaves little to exchange; the first k candidates leave more.
    #[test]
    fn swaps_of_any_start_are_the_rule(
        (scores, w, k) in problem_of(0..25),
        sum in any::<bool>(),
        max_swaps in 0_usize..9,
    ) {
        let (m, cancel, none) = (scores.len(), Cancel::new(), Limits::default());
        let bonus = if sum { Bonus::Sum } else { Bonus::Mean };
        let (wide, flat, ids) = (widen(&scores), w.concat(), Vec::from_iter(0..k as i64));
        let synergy = |f: usize, s: usize| f64::from(w[f][s]);
        let all = |_: &[usize], _: usize, _: usize| true;
        let want = naive::improve_by_swaps(&wide, synergy, &ids, bonus, all, max_swaps);
        let (dense, (indptr, indices, values)) = (Dense::new(&flat, m).unwrap(), csr(&w));
        let sparse = Csr::new(&indptr, &indices, &values).unwrap();
        let got = improve_by_swaps(&scores, &dense, &ids, bonus, none, max_swaps, &cancel);
        prop_assert_eq!(&got.unwrap(), &want);
        let got = improve_by_swaps(&wide, &sparse, &ids, bonus, none, max_swaps, &cancel);
        prop_assert_eq!(&got.unwrap(), &want);
    }

    #[test]
    fn top_k_is_a_sort(
        few in prop::collection::vec(number(), 1..300),
        times in 1_usize..40,
        share in 0.0_f64..=1.0,
        threads in 1_usize..4,
    ) {
        let scores: Vec<f32> = few.iter().copied().cycle().take(few.len() * times).collect();
        let k = (share * share * scores.len() as f64) as usize;
        let wide = widen(&scores);
        let want = naive::top_k(&wide, k).unwrap();
        let ids = |best: Vec<pie_fast_core::Scored>| -> Vec<usize> {
            best.iter().map(|s| s.id as usize).collect()
        };
        let (filter, cancel) = (Filter::default(), Cancel::new());
        prop_assert_eq!(ids(top_k(&scores, k, filter, Some(threads), &cancel).unwrap()), &want[..]);
        prop_assert_eq!(ids(top_k(&wide, k, filter, None, &cancel).unwrap()), &want[..]);
        let mask: Vec<bool> = (0..scores.len()).map(|f| f % 3 != 1).collect();
        let kept: Vec<usize> = naive::top_k(&wide, scores.len())
            .unwrap()
            .into_iter()
            .filter(|&f| mask[f])
            .take(k)
            .collect();
        let filter = Filter { mask: Some(&mask), finite: true };
        prop_assert_eq!(ids(top_k(&wide, k, filter, Some(1), &cancel).unwrap()), kept);
    }
}

#[test]
fn sparse_lists_grow_and_parts_agree() {
    // More candidates than the list starts with, strong negatives that use the list up, and two
    // parts of the threshold scan.
    let m = 1_200_000_usize;
    let scores: Vec<f64> = (0..m).map(|f| ((f * 7919) % 1009) as f64 / 1009.0).collect();
    let cancel = Cancel::new();
    let one = top_k(&scores, 3000, Filter::default(), Some(1), &cancel).unwrap();
    for threads in [2, 3] {
        assert_eq!(one, top_k(&scores, 3000, Filter::default(), Some(threads), &cancel).unwrap());
    }
    let m = 3000;
    let scores = &scores[..m];
    let w = |i: usize, j: usize| match (i.min(j), i.max(j)) {
        (i, j) if i != j && (i * 31 + j * 17) % 5 < 3 => -(((i + j) % 13) as f64),
        (i, j) if i != j && (i * 31 + j * 17) % 5 < 4 => ((i * j) % 7) as f64 * 0.1,
        _ => 0.0,
    };
    let (mut indptr, mut indices, mut values) = (vec![0_i64], vec![], vec![]);
    for i in 0..m {
        for j in (0..m).filter(|&j| w(i, j) != 0.0) {
            indices.push(j as i64);
            values.push(w(i, j));
        }
        indptr.push(indices.len() as i64);
    }
    let sparse = Csr::new(&indptr, &indices, &values).unwrap();
    for bonus in [Bonus::Mean, Bonus::Sum] {
        let got = greedy_select(scores, &sparse, 60, bonus, Limits::default(), &cancel).unwrap();
        assert_eq!(got, naive::greedy_select(scores, w, 60, bonus).unwrap());
    }
}

#[test]
fn zeros_have_no_sign() {
    let (scores, cancel) = ([-0.0_f64; 2], Cancel::new());
    let dense = Dense::new(&[0.0_f64; 4], 2).unwrap();
    let sparse = Csr::<i64, f64>::new(&[0, 0, 0], &[], &[]).unwrap();
    let none = Limits::default();
    let of_dense = explain(&scores, &dense, 2, Bonus::Mean, none, &cancel).unwrap();
    let of_sparse = explain(&scores, &sparse, 2, Bonus::Mean, none, &cancel).unwrap();
    for step in of_dense.iter().chain(&of_sparse) {
        assert_eq!((step.score.to_bits(), step.gain.to_bits()), (0, 0));
    }
}

fn message<T>(result: pie_fast_core::Result<T>) -> String {
    result.err().unwrap().to_string()
}

#[test]
fn broken_matrices_are_named() {
    let cancel = Cancel::new();
    let check = |w: &[f64], n| Dense::new(w, n).unwrap().check(None, &cancel);
    assert_eq!(
        message(check(&[0.0, 1.0, 2.0, 0.0], 2)),
        "synergy is not symmetric: [0, 1] is 1 but [1, 0] is 2"
    );
    assert_eq!(message(check(&[f64::INFINITY], 1)), "synergy[0, 0] is inf, must be finite");
    assert!(message(check(&[0.0, f64::NAN, f64::NAN, 0.0], 2)).ends_with("is NaN, must be finite"));

    let check = |indptr: &[i64], indices: &[i64], values: &[f32]| {
        Csr::new(indptr, indices, values).and_then(|m| m.check(None, &cancel))
    };
    assert!(check(&[0, 1, 2], &[1, 0], &[2.0, 2.0]).is_ok());
    assert!(check(&[0, 2, 3], &[1, 0, 0], &[2.0, 9.0, 2.0]).is_ok());
    // A stored zero is an absent entry.
    assert!(check(&[0, 1, 1], &[1], &[-0.0]).is_ok());
    for (indptr, indices, values, want) in [
        (&[0, 1, 2], &[1, 0], &[2.0, 3.0], "synergy is not symmetric: [0, 1] is 2 but [1, 0] is 3"),
        (&[0, 1, 2], &[1, 1], &[2.0, 3.0], "[0, 1] is 2 but [1, 0] is not stored"),
        (&[0, 1, 2], &[1, 2], &[2.0, 3.0], "row 1 of synergy has column 2, must be in 0..2"),
        (&[0, 1, 2], &[-1, 0], &[2.0, 3.0], "row 0 of synergy has column -1, must be in 0..2"),
        (&[0, 1, 2], &[1, 0], &[f32::NAN, 3.0], "synergy[0, 1] is NaN, must be finite"),
        (&[0, 3, 2], &[1, 0], &[2.0, 2.0], "indptr[0] = 0 and indptr[1] = 3, must ascend"),
        (&[0, 2, 2], &[1, 1], &[2.0, 2.0], "row 0 of synergy has column 1 twice"),
        (&[1, 1, 2], &[1, 0], &[2.0, 2.0], "indptr goes from 1 to 2, must go from 0 to 2"),
    ] {
        let got = message(check(indptr, indices, values));
        assert!(got.contains(want), "{got} / {want}");
    }
    assert!(message(check(&[], &[], &[])).contains("indptr is empty"));
}
