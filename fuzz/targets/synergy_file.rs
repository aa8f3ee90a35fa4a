//! `synergy.safetensors` as it is; what is read selects as the definition does.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pie_fast_core::select::dense::Dense;
use pie_fast_core::select::sparse::Csr;
use pie_fast_core::select::{Bonus, Limits, Synergy, greedy_select};
use pie_fast_core::synergy::{Values, clusters, clusters_sparse, load};
use pie_fast_core::{Cancel, naive};
use pie_fast_fuzz::write;

/// Candidates above which the naive selection is left out.
const MANY: usize = 40;

fuzz_target!(|data: &[u8]| {
    let cancel = Cancel::new();
    let Ok(loaded) = load(&write("synergy", data), &cancel) else { return };
    let m = loaded.pool.len();
    let mut full = vec![0f32; m * m];
    let labels = match &loaded.values {
        Values::Dense(values) => {
            full.copy_from_slice(values);
            clusters(values, m, 0.5)
        }
        Values::Sparse(csr) => {
            let csr = Csr::new(&csr.indptr, &csr.indices, &csr.values).expect("checked");
            for i in 0..m {
                let (columns, values) = csr.row(i).expect("checked");
                columns.iter().zip(values).for_each(|(&j, &w)| full[i * m + j as usize] = w);
            }
            clusters_sparse(&csr, 0.5)
        }
    };
    assert_eq!(labels.expect("checked").len(), m);
    let at = |i: usize, j: usize| f64::from(full[i * m + j]);
    assert!((0..m).all(|i| (0..m).all(|j| at(i, j) == at(j, i) && at(i, j).is_finite())));
    if m > MANY {
        return;
    }
    let scores = vec![0.5f64; m];
    let want = naive::greedy_select(&scores, at, m, Bonus::Mean).expect("finite");
    let none = Limits::default();
    let got = match &loaded.values {
        Values::Dense(values) => {
            let dense = Dense::new(values, m).expect("checked");
            greedy_select(&scores, &dense, m, Bonus::Mean, none, &cancel)
        }
        Values::Sparse(csr) => {
            let csr = Csr::new(&csr.indptr, &csr.indices, &csr.values).expect("checked");
            assert!(csr.check(Some(1), &cancel).is_ok());
            greedy_select(&scores, &csr, m, Bonus::Mean, none, &cancel)
        }
    };
    assert_eq!(got.expect("checked"), want);
});
