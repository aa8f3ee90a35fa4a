//! Synergy matrices as a caller gives them, right or wrong: the checks, selection, exchanges and
//! clusters give an error or the answer of the definition.
#![no_main]

use libfuzzer_sys::{arbitrary::Unstructured, fuzz_target};
use pie_fast_core::select::dense::Dense;
use pie_fast_core::select::sparse::Csr;
use pie_fast_core::select::{Bonus, Limits, Synergy, explain, greedy_select, improve_by_swaps};
use pie_fast_core::synergy::{clusters, clusters_sparse};
use pie_fast_core::{Cancel, naive};
use pie_fast_fuzz::{number, up_to};

struct Input {
    indptr: Vec<i64>,
    indices: Vec<i32>,
    values: Vec<f32>,
    scores: Vec<f32>,
    k: usize,
    bonus: Bonus,
    limits: [Vec<i64>; 2],
}

impl Input {
    fn read(u: &mut Unstructured<'_>) -> Self {
        let (m, flags) = (up_to(u, 20), u.arbitrary::<u8>().unwrap_or(0));
        let k = up_to(u, m + 1);
        let scores = (0..m).map(|_| number(u)).collect();
        let bonus = if flags & 1 == 0 { Bonus::Mean } else { Bonus::Sum };
        let some = |u: &mut Unstructured<'_>| {
            (0..up_to(u, 3)).map(|_| up_to(u, m + 2) as i64 - 1).collect::<Vec<i64>>()
        };
        let limits = if flags & 4 == 0 { [vec![], vec![]] } else { [some(u), some(u)] };
        let mut input =
            Self { indptr: vec![0], indices: vec![], values: vec![], scores, k, bonus, limits };
        if flags & 2 == 0 {
            input.symmetric(u, m)
        } else {
            input.anything(u, m)
        }
        input
    }

    fn symmetric(&mut self, u: &mut Unstructured<'_>, m: usize) {
        let mut full = vec![0f32; m * m];
        for _ in 0..up_to(u, m * 4) {
            let (i, j, w) = (up_to(u, m.max(1) - 1), up_to(u, m.max(1) - 1), number(u));
            if m > 0 {
                (full[i * m + j], full[j * m + i]) = (w, w);
            }
        }
        for i in 0..m {
            for j in (0..m).filter(|j| full[i * m + j].to_bits() != 0) {
                self.indices.push(j as i32);
                self.values.push(full[i * m + j]);
            }
            self.indptr.push(self.indices.len() as i64);
        }
    }

    fn anything(&mut self, u: &mut Unstructured<'_>, m: usize) {
        let n = up_to(u, 60);
        self.indices = (0..n).map(|_| up_to(u, m + 2) as i32 - 1).collect();
        self.values = (0..n).map(|_| number(u)).collect();
        self.indptr = (0..m + 1).map(|_| up_to(u, n + 2) as i64 - 1).collect();
        (self.indptr[0], self.indptr[m]) = (0, n as i64);
    }

    /// `[M, M]`, or nothing where a place is outside.
    fn full(&self) -> Option<Vec<f32>> {
        let m = self.scores.len();
        let mut full = vec![0f32; m * m];
        for i in 0..m {
            let range = self.indptr[i].try_into().ok()?..self.indptr[i + 1].try_into().ok()?;
            let (columns, values) = (self.indices.get(range.clone())?, self.values.get(range)?);
            for (&column, &value) in columns.iter().zip(values) {
                let column = usize::try_from(column).ok().filter(|&column| column < m)?;
                full[i * m + column] = value;
            }
        }
        Some(full)
    }
}

fn run<W: Synergy>(input: &Input, matrix: &W, right: bool) {
    let (cancel, scores) = (Cancel::new(), &input.scores[..]);
    let [include, exclude] = &input.limits;
    let limits = Limits { include, exclude, per_layer: None };
    let got = greedy_select(scores, matrix, input.k, input.bonus, limits, &cancel);
    let steps = explain(scores, matrix, input.k, input.bonus, limits, &cancel);
    assert_eq!(got.is_ok(), steps.is_ok());
    let free = include.is_empty() && exclude.is_empty();
    let full = input.full().filter(|_| right && free);
    let m = scores.len();
    if let Some(full) = &full {
        let wide: Vec<f64> = scores.iter().map(|&x| x.into()).collect();
        let at = |i: usize, j: usize| f64::from(full[i * m + j]);
        let want = naive::greedy_select(&wide, at, input.k, input.bonus);
        let finite = wide.iter().all(|x| x.is_finite());
        match (&got, &want) {
            (Ok(got), Ok(want)) => assert_eq!(got, want),
            (Err(_), Err(_)) => {}
            // Ours looks at all scores and at whole rows, the naive one at what it adds up.
            (Err(_), Ok(_)) => assert!(!finite, "{got:?}"),
            (Ok(_), Err(error)) => panic!("selected where the naive version has {error}"),
        }
    }
    let Ok(selection) = got else { return };
    assert_eq!(selection.ids.len(), input.k);
    assert!(selection.ids.iter().all(|id| !exclude.contains(id)));
    let ids = &selection.ids;
    let swapped = improve_by_swaps(scores, matrix, ids, input.bonus, limits, 3, &cancel);
    if let Ok(swapped) = swapped {
        assert!(swapped.objective.1 >= swapped.objective.0);
        assert_eq!(swapped.ids.len(), ids.len());
    }
}

fuzz_target!(|data: &[u8]| {
    let input = Input::read(&mut Unstructured::new(data));
    let cancel = Cancel::new();
    if let Some(full) = input.full() {
        let m = input.scores.len();
        let dense = Dense::new(&full, m).expect("of this size");
        let right = dense.check(Some(1), &cancel).is_ok();
        run(&input, &dense, right);
        assert_eq!(clusters(&full, m, 1.0).expect("of this size").len(), m);
    }
    let Ok(csr) = Csr::new(&input.indptr, &input.indices, &input.values) else { return };
    let right = csr.check(Some(1), &cancel).is_ok();
    assert!(!right || input.full().is_some());
    run(&input, &csr, right);
    let wide: Vec<i64> = input.indices.iter().map(|&i| i.into()).collect();
    let csr = Csr::new(&input.indptr, &wide, &input.values).expect("as before");
    assert_eq!(csr.check(Some(1), &cancel).is_ok(), right);
    let _ = clusters_sparse(&csr, 1.0);
});
