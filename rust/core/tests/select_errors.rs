//! What selection and top-k refuse, in words, over both kinds of matrix.
#![allow(missing_docs, clippy::unwrap_used)]

use pie_fast_core::select::dense::Dense;
use pie_fast_core::select::sparse::Csr;
use pie_fast_core::select::{
    Bonus, Limits, Swapped, Synergy, explain, greedy_select, improve_by_swaps, select_many,
};
use pie_fast_core::simd::Kernel;
use pie_fast_core::topk::{Filter, top_k, top_k_per_layer};
use pie_fast_core::{Cancel, Error, Result};

const SCORES: [f64; 4] = [4.0, 3.0, 2.0, 1.0];
const LAYERS: [i64; 4] = [0, 0, 0, 1];

/// Only the last two touch.
const W: [f64; 16] = [
    0.0, 0.0, 0.0, 0.0, //
    0.0, 0.0, 0.0, 0.0, //
    0.0, 0.0, 9.0, 0.5, //
    0.0, 0.0, 0.5, 0.0,
];

/// A result whose error is its message.
type Told<T> = std::result::Result<T, String>;

fn message<T>(result: Result<T>) -> String {
    result.err().unwrap().to_string()
}

fn none() -> Limits<'static> {
    Limits::default()
}

/// The same with a dense and a sparse matrix, whose answers are equal.
fn both<T: PartialEq + std::fmt::Debug>(
    w: &[f64],
    n: usize,
    with_dense: impl Fn(&Dense<'_, f64>) -> T,
    with_sparse: impl Fn(&Csr<'_, i32, f64>) -> T,
) -> T {
    let (mut indptr, mut indices, mut values) = (vec![0_i64], vec![], vec![]);
    for row in w.chunks(n) {
        for (j, &x) in row.iter().enumerate().filter(|(_, x)| **x != 0.0) {
            indices.push(j as i32);
            values.push(x);
        }
        indptr.push(indices.len() as i64);
    }
    let of_dense = with_dense(&Dense::new(w, n).unwrap());
    assert_eq!(of_dense, with_sparse(&Csr::new(&indptr, &indices, &values).unwrap()));
    of_dense
}

fn greedy(scores: &[f64], w: &[f64], k: usize, limits: Limits<'_>) -> Told<Vec<i64>> {
    fn of<W: Synergy>(s: &[f64], w: &W, k: usize, limits: Limits<'_>) -> Told<Vec<i64>> {
        let found = greedy_select(s, w, k, Bonus::Mean, limits, &Cancel::new());
        found.map(|selection| selection.ids).map_err(|error| error.to_string())
    }
    let n = w.len().isqrt();
    both(w, n, |w| of(scores, w, k, limits), |w| of(scores, w, k, limits))
}

fn swaps(ids: &[i64], limits: Limits<'_>, max_swaps: usize) -> Told<Swapped> {
    fn of<W: Synergy>(w: &W, ids: &[i64], limits: Limits<'_>, n: usize) -> Told<Swapped> {
        let found = improve_by_swaps(&SCORES, w, ids, Bonus::Mean, limits, n, &Cancel::new());
        found.map_err(|error| error.to_string())
    }
    both(&W, 4, |w| of(w, ids, limits, max_swaps), |w| of(w, ids, limits, max_swaps))
}

#[test]
fn limits_that_cannot_be_kept() {
    let per_layer = |n| Limits { per_layer: Some((&LAYERS, n)), ..none() };
    for (limits, k, want) in [
        (none(), 5, "k 5 exceeds the 4 candidates"),
        (per_layer(0), 1, "max_per_layer is 0, must be at least 1"),
        (
            Limits { per_layer: Some((&LAYERS[1..], 1)), ..none() },
            1,
            "layers has length 3, must be 4",
        ),
        (Limits { include: &[4], ..none() }, 2, "must_include id 4 is not in 0..4"),
        (Limits { include: &[-1], ..none() }, 2, "must_include id -1 is not in 0..4"),
        (Limits { exclude: &[9], ..none() }, 2, "must_exclude id 9 is not in 0..4"),
        (Limits { include: &[1, 1], ..none() }, 2, "must_include has id 1 twice"),
        (
            Limits { include: &[1], exclude: &[1], ..none() },
            2,
            "id 1 must be included and excluded",
        ),
        (Limits { include: &[1, 2], ..none() }, 1, "must_include has 2 ids, k is only 1"),
        (
            Limits { include: &[1, 2], ..per_layer(1) },
            2,
            "must_include has 2 ids of layer 0, at most 1 are allowed",
        ),
        (per_layer(1), 3, "k 3 exceeds the 2 candidates that the constraints leave"),
        (
            Limits { exclude: &[0, 1, 2, 3], ..none() },
            1,
            "k 1 exceeds the 0 candidates that the constraints leave",
        ),
    ] {
        // Of an id that is no id, dense and sparse engines hear only after it was refused.
        if limits.exclude != [9] {
            assert_eq!(greedy(&SCORES, &W, k, limits), Err(want.to_owned()));
        }
    }
    let both = Limits { include: &[3, 1], exclude: &[0, 0], ..per_layer(2) };
    assert_eq!(greedy(&SCORES, &W, 3, both), Ok(vec![3, 1, 2]));
    assert_eq!(greedy(&SCORES, &W, 2, Limits { include: &[3, 1], ..none() }), Ok(vec![3, 1]));
    assert_eq!(greedy(&SCORES, &W, 3, per_layer(2)), Ok(vec![0, 1, 3]));
}

#[test]
fn numbers_that_are_none() {
    let with = |changes: &[(usize, f64)]| {
        let mut w = W;
        changes.iter().for_each(|&(at, x)| w[at] = x);
        w
    };
    let greedy = |scores: &[f64], w: &[f64], k| greedy(scores, w, k, none()).unwrap_err();
    // A row that is read before a step, and one that only the last look finds.
    let broken = with(&[(1, f64::NAN), (2, f64::NAN), (3, f64::NAN)]);
    assert_eq!(greedy(&SCORES, &broken, 2), "synergy[0, 1] is NaN, must be finite");
    for (number, said) in [(f64::INFINITY, "inf"), (f64::NEG_INFINITY, "-inf"), (f64::NAN, "NaN")] {
        let want = format!("synergy[0, 3] is {said}, must be finite");
        assert_eq!(greedy(&SCORES, &with(&[(3, number)]), 2), want);
    }
    let large = with(&[(2, -f64::MAX), (6, -f64::MAX)]);
    let too_large = "the synergies of a candidate add up to more than float64 can hold";
    assert_eq!(greedy(&SCORES, &large, 4), too_large);

    let scores = [1.0, f64::NAN, 1.0, 1.0];
    let dense = Dense::new(&W, 4).unwrap();
    let cancel = Cancel::new();
    let found = greedy_select(&scores, &dense, 1, Bonus::Sum, none(), &cancel);
    assert_eq!(message(found), "score of id 1 is NaN, must be finite");
    let found = improve_by_swaps(&scores, &dense, &[0], Bonus::Sum, none(), 1, &cancel);
    assert_eq!(message(found), "score of id 1 is NaN, must be finite");
    let found = greedy_select(&SCORES[1..], &dense, 1, Bonus::Sum, none(), &cancel);
    assert_eq!(message(found), "synergy is of 4 candidates, scores of 3");
    assert_eq!(message(Dense::new(&W, 3)), "synergy holds 16 numbers, must be 3 x 3");
    let values = [1.0_f32];
    let csr = Csr::<i32, f32>::new(&[0, 1], &[], &values);
    assert_eq!(message(csr), "values has length 1, must be 0 as indices");
    let pair = [f64::MAX; 4];
    let found = improve_by_swaps(
        &[f64::MAX; 2],
        &Dense::new(&pair, 2).unwrap(),
        &[0, 1],
        Bonus::Sum,
        none(),
        1,
        &cancel,
    );
    assert_eq!(message(found), too_large);
}

#[test]
fn selections_that_cannot_be_improved() {
    let per_layer = |n| Limits { per_layer: Some((&LAYERS, n)), ..none() };
    for (ids, limits, want) in [
        (&[4][..], none(), "id 4 is not in 0..4"),
        (&[-1], none(), "id -1 is not in 0..4"),
        (&[2, 2], none(), "id 2 is selected twice"),
        (&[2], Limits { include: &[1], ..none() }, "must_include id 1 is not selected"),
        (&[2], Limits { exclude: &[2], ..none() }, "must_exclude id 2 is selected"),
        (&[0, 3, 2], per_layer(1), "2 ids of layer 0 are selected, at most 1 are allowed"),
    ] {
        assert_eq!(swaps(ids, limits, 9), Err(want.to_owned()));
    }
}

#[test]
fn swaps_of_a_bad_start() {
    // F: 2 + 1 + 0.5, then 4 and 3 come in for the last and the one before.
    let found = swaps(&[2, 3], none(), 9).unwrap();
    assert_eq!(
        found,
        Swapped { ids: vec![1, 0], objective: (3.5, 7.0), swaps: vec![(3, 0), (2, 1)] }
    );
    let one = swaps(&[2, 3], none(), 1).unwrap();
    assert_eq!((one.ids, one.objective), (vec![2, 0], (3.5, 6.0)));
    assert_eq!(swaps(&[2, 3], none(), 0).unwrap().swaps, []);
    assert_eq!(swaps(&[0, 1], none(), 9).unwrap().swaps, []);
    // The last one stays, one of its layer may go, and nobody else fits.
    let kept = Limits { include: &[3], exclude: &[0], ..none() };
    assert_eq!(swaps(&[2, 3], kept, 9).unwrap().ids, [1, 3]);
    let full = Limits { per_layer: Some((&LAYERS, 1)), ..none() };
    assert_eq!(swaps(&[2, 3], full, 9).unwrap().ids, [0, 3]);
    // Two of one layer, at most two: one outside it comes in only where that gains.
    let two = Limits { per_layer: Some((&LAYERS, 2)), ..none() };
    assert_eq!(swaps(&[1, 2, 3], two, 9).unwrap().ids, [1, 0, 3]);
}

#[test]
fn of_equal_swaps_the_first_is_made() {
    let dense = Dense::new(&[0.0_f64; 16], 4).unwrap();
    let swaps = |scores: &[f64; 4], ids: &[i64]| {
        let found =
            improve_by_swaps(scores, &dense, ids, Bonus::Mean, none(), 1, &Cancel::new()).unwrap();
        found.swaps
    };
    assert_eq!(swaps(&[1.0, 3.0, 3.0, 0.0], &[0]), [(0, 1)]);
    assert_eq!(swaps(&[1.0, 1.0, 3.0, 3.0], &[1, 0]), [(1, 2)]);
    assert_eq!(swaps(&[1.0; 4], &[1, 0]), []);
}

#[test]
fn a_matrix_takes_the_kernel_that_it_is_given() {
    let plain = Dense::new(&W, 4).unwrap().with_kernel(Kernel::plain());
    assert!(format!("{plain:?}").contains(&format!("{:?}", Kernel::plain())));
}

#[test]
fn many_rows_and_words() {
    let (dense, cancel) = (Dense::new(&W, 4).unwrap(), Cancel::new());
    let many = |scores: &[f64], rows, k, threads| {
        select_many(scores, rows, &dense, k, Bonus::Mean, threads, &cancel)
    };
    let two = [SCORES, [0.0, 1.0, 2.0, f64::INFINITY]].concat();
    assert_eq!(message(many(&two, 2, 1, None)), "row 1: score of id 3 is inf, must be finite");
    assert_eq!(message(many(&two, 3, 1, None)), "8 scores, must be 3 x 4 = 12");
    assert_eq!(message(many(&SCORES, 1, 1, Some(0))), "threads is 0, must be in [1, 1024]");
    let over = many(&SCORES, 1, 5, None);
    assert!(
        matches!(&over, Err(Error::Budget(text)) if text == "row 0: k 5 exceeds the 4 candidates")
    );
    assert_eq!(many(&[], 0, 4, None).unwrap(), [0; 0]);

    assert_eq!(
        ("mean".parse::<Bonus>().unwrap(), "sum".parse().unwrap()),
        (Bonus::Mean, Bonus::Sum)
    );
    assert_eq!(message("max".parse::<Bonus>()), "bonus \"max\" must be \"mean\" or \"sum\"");
    assert_eq!([0, 1, 5].map(|n| Bonus::Mean.divisor(n)), [1.0, 1.0, 5.0]);
    assert_eq!(Bonus::Sum.divisor(5), 1.0);

    let steps = explain(&SCORES, &dense, 4, Bonus::Sum, none(), &cancel).unwrap();
    assert_eq!((steps[3].id, steps[3].score, steps[3].bonus, steps[3].gain), (3, 1.0, 0.5, 1.5));
    let second: Vec<_> = steps.iter().map(|step| step.runner_up).collect();
    assert_eq!(second, [Some((1, 3.0)), Some((2, 2.0)), Some((3, 1.0)), None]);

    cancel.cancel();
    for stopped in [
        greedy_select(&SCORES, &dense, 1, Bonus::Sum, none(), &cancel).err(),
        many(&SCORES, 1, 1, None).err(),
        improve_by_swaps(&SCORES, &dense, &[3], Bonus::Sum, none(), 1, &cancel).err(),
        dense.check(None, &cancel).err(),
        top_k(&SCORES, 1, Filter::default(), None, &cancel).err(),
    ] {
        assert!(matches!(stopped, Some(Error::Interrupted)));
    }
}

#[test]
fn matrices_that_are_large_are_looked_at_everywhere() {
    // More than one tile and one task, the last of each cut off.
    let n = 150;
    let good: Vec<f32> = (0..n * n).map(|at| ((at / n + at % n) % 7) as f32).collect();
    let check = |w: &[f32]| Dense::new(w, n).unwrap().check(Some(2), &Cancel::new());
    check(&good).unwrap();
    for (i, j) in [(0, 149), (63, 64), (64, 63), (149, 148), (100, 70), (149, 0)] {
        let mut w = good.clone();
        w[i * n + j] = 0.5;
        // Within a tile the upper entry comes first, otherwise the lower one.
        let (low, high) = (i.min(j), i.max(j));
        let (row, column) = if low / 64 == high / 64 { (low, high) } else { (high, low) };
        let (a, b) = (w[row * n + column], w[column * n + row]);
        let want = format!("[{row}, {column}] is {a} but [{column}, {row}] is {b}");
        assert_eq!(message(check(&w)), format!("synergy is not symmetric: {want}"));
        w[i * n + j] = f32::NAN;
        assert_eq!(message(check(&w)), format!("synergy[{i}, {j}] is NaN, must be finite"));
    }
}

#[test]
fn sparse_matrices_of_many_rows_are_looked_at_everywhere() {
    // Three tasks of 16384 rows and one of a few; pairs within a task and across.
    let n = 3 * 16_384 + 5;
    let pairs = [(0, n - 1), (3, 16_384), (16_383, 16_385), (20_000, 20_001), (40_000, n - 2)];
    let check = |entries: &mut Vec<(usize, usize, f32)>| {
        entries.sort_by_key(|&(row, column, _)| (row, column));
        let mut indptr = vec![0_i64; n + 1];
        entries.iter().for_each(|&(row, ..)| indptr[row + 1] += 1);
        (0..n).for_each(|row| indptr[row + 1] += indptr[row]);
        let indices: Vec<i32> = entries.iter().map(|&(_, column, _)| column as i32).collect();
        let values: Vec<f32> = entries.iter().map(|&(.., value)| value).collect();
        let csr = Csr::new(&indptr, &indices, &values).unwrap();
        assert_eq!((csr.len(), csr.is_empty()), (n, false));
        csr.check(Some(2), &Cancel::new())
    };
    let both = |&(i, j): &(usize, usize)| [(i, j, 2.0), (j, i, 2.0)];
    let mut good: Vec<_> = pairs.iter().flat_map(both).collect();
    check(&mut good).unwrap();
    for (at, &(i, j, value)) in good.iter().enumerate() {
        let mut other = good.clone();
        other[at].2 = f32::NAN;
        let want = format!("synergy[{i}, {j}] is NaN, must be finite");
        assert_eq!(message(check(&mut other)), want);
        other.remove(at);
        let want = format!("[{j}, {i}] is {value} but [{i}, {j}] is not stored");
        assert_eq!(message(check(&mut other)), format!("synergy is not symmetric: {want}"));
    }
    assert!(Csr::<i32, f32>::new(&[0], &[], &[]).unwrap().is_empty());
}

#[test]
fn mirrors_have_the_same_value_at_the_same_place() {
    let check = |indptr: &[i64], indices: &[i32], values: &[f32]| {
        Csr::new(indptr, indices, values).unwrap().check(None, &Cancel::new())
    };
    // Each sum over all entries has one value above the diagonal and the same one below.
    for (indptr, indices, want) in [
        ([0, 1, 1, 2], [2, 1], "[0, 2] is 2 but [2, 0] is not stored"),
        ([0, 1, 1, 2], [1, 0], "[0, 1] is 2 but [1, 0] is not stored"),
    ] {
        let found = message(check(&indptr, &indices, &[2.0, 2.0]));
        assert_eq!(found, format!("synergy is not symmetric: {want}"));
    }
    // Values of which one has a bit that the other lacks, at many places.
    for j in 1..40 {
        let mut indptr = vec![0_i64; 41];
        (1..=j).for_each(|row| indptr[row] = 1);
        (j + 1..41).for_each(|row| indptr[row] = 2);
        for (a, b) in [(2.0, 3.0), (3.0, 2.0)] {
            let found = message(check(&indptr, &[j as i32, 0], &[a, b]));
            let want = format!("[0, {j}] is {a} but [{j}, 0] is {b}");
            assert_eq!(found, format!("synergy is not symmetric: {want}"));
        }
    }
}

#[test]
fn top_k_refuses_what_it_cannot_rank() {
    let cancel = Cancel::new();
    let (short, mask) = ([true; 3], [true, false, true, true]);
    let best =
        |k, mask, finite, scores: &[f32]| top_k(scores, k, Filter { mask, finite }, None, &cancel);
    assert_eq!(message(best(5, None, false, &[1.0; 4])), "k 5 exceeds the 4 scores");
    let found = best(1, Some(&short), false, &[1.0; 4]);
    assert_eq!(message(found), "mask has length 3, must be 4");
    let infinite = [1.0, f32::INFINITY, f32::NEG_INFINITY, 0.0];
    let ids = |found: Result<Vec<pie_fast_core::Scored>>| -> Vec<u64> {
        found.unwrap().iter().map(|one| one.id).collect()
    };
    assert_eq!(ids(best(4, None, false, &infinite)), [1, 0, 3, 2]);
    assert_eq!(ids(best(4, Some(&mask), false, &infinite)), [0, 3, 2]);
    let found = best(1, Some(&mask), true, &infinite);
    assert_eq!(message(found), "score of id 1 is inf, must be finite");
    for threads in [Some(0), Some(1)] {
        let found = top_k_per_layer(&infinite, 1, 0, Filter::default(), threads, &cancel);
        assert_eq!(message(found), "4 scores are not layers of 0");
    }
    let filter = Filter { mask: Some(&short), finite: false };
    let found = top_k_per_layer(&infinite, 1, 2, filter, None, &cancel);
    assert_eq!(message(found), "mask has length 3, must be 4");
}
