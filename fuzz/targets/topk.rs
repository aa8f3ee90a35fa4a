//! The best of an array and the strongest pairs of every row, beside the naive versions.
#![no_main]

use libfuzzer_sys::{arbitrary::Unstructured, fuzz_target};
use pie_fast_core::synergy::{Importances, top_per_row};
use pie_fast_core::topk::{Filter, top_k};
use pie_fast_core::{Cancel, naive};
use pie_fast_fuzz::{number, up_to};

fn best(u: &mut Unstructured<'_>) {
    // Few numbers again and again, so that some inputs are longer than a block and all ties.
    let (n, n_kinds) = (up_to(u, 9000), 1 + up_to(u, 60));
    let kinds: Vec<f64> = (0..n_kinds).map(|_| number(u).into()).collect();
    let step = 1 + up_to(u, 100);
    let scores: Vec<f64> = (0..n).map(|i| kinds[i * step % n_kinds]).collect();
    let k = up_to(u, n + 1);
    let got = top_k(&scores, k, Filter::default(), Some(1), &Cancel::new());
    let infinite = scores.iter().any(|score| score.is_infinite());
    match (got, naive::top_k(&scores, k)) {
        (Ok(got), Ok(want)) => {
            assert!(got.iter().map(|best| best.id as usize).eq(want));
        }
        (Err(_), Err(_)) => {}
        (Err(error), Ok(_)) => assert!(infinite, "{error}"),
        (Ok(_), Err(error)) => panic!("ranked where the naive version has {error}"),
    }
}

fn pairs(u: &mut Unstructured<'_>) {
    let finite = |x: f32| if x.abs() < 1e6 { x.into() } else { 1.0 };
    let (n, t) = (up_to(u, 700), up_to(u, 20));
    let n = if n > 512 && n % 16 == 0 { n } else { n % 40 }; // the sample begins at 512
    let n_kinds = 1 + up_to(u, 40);
    let kinds: Vec<f64> = (0..n_kinds).map(|_| finite(number(u))).collect();
    let step = 1 + up_to(u, 100);
    let n_pairs = n * n.saturating_sub(1) / 2;
    let joint: Vec<f64> = (0..n_pairs).map(|i| kinds[i * step % n_kinds]).collect();
    let single: Vec<f64> = (0..n).map(|i| kinds[(i + step) % n_kinds]).collect();
    let (clipped, symmetric) = (u.arbitrary().unwrap_or(false), u.arbitrary().unwrap_or(false));
    let given = Importances { joint: &joint, single: &single, clipped };
    let got = top_per_row(given, t, symmetric, Some(1), &Cancel::new()).expect("finite");
    assert_eq!(got, naive::top_per_row(&joint, &single, t, clipped, symmetric));
}

fuzz_target!(|data: &[u8]| {
    let mut u = Unstructured::new(data);
    if up_to(&mut u, 1) == 0 { best(&mut u) } else { pairs(&mut u) }
});
