//! Files of synergies and groups of candidates, right and wrong.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic)]

#[path = "common/editing.rs"]
mod editing;

use editing::{Column, bytes, changed, numbers};
use pie_fast_core::select::sparse::Csr;
use pie_fast_core::synergy::{
    CsrArrays, Importances, Loaded, Values, clusters, clusters_sparse, load, top_per_row, unpack,
};
use pie_fast_core::{Cancel, Error, Result};
use proptest::prelude::*;
use serde_json::{Value, json};

const DENSE: [f32; 9] = [0.0, 1.0, 2.0, 1.0, 0.0, 0.0, 2.0, 0.0, 0.0];

fn column(name: &str, dtype: &str, shape: &[usize], data: Vec<u8>) -> Column {
    Column { name: name.to_owned(), dtype: dtype.to_owned(), shape: shape.to_vec(), data }
}

fn floats(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

fn ints(values: &[i32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

fn dense() -> Vec<Column> {
    vec![
        column("pool", "U32", &[3], ints(&[2, 5, 9])),
        column("values", "F32", &[3, 3], floats(&DENSE)),
        column("done", "U8", &[3], vec![1, 0, 1]),
    ]
}

fn sparse() -> Vec<Column> {
    vec![
        column("pool", "U32", &[3], ints(&[2, 5, 9])),
        column("indptr", "I64", &[4], numbers(&[0, 2, 3, 4])),
        column("indices", "I32", &[4], ints(&[1, 2, 0, 0])),
        column("values", "F32", &[4], floats(&[1.0, 2.0, 1.0, 2.0])),
        column("done", "U8", &[3], vec![1, 0, 1]),
    ]
}

fn texts() -> Value {
    json!({"direction": "noising", "estimator": "exact", "form": "clipped", "n_prompts": "4"})
}

fn read(columns: &[Column], texts: Value) -> Result<Loaded> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("synergy.safetensors");
    std::fs::write(&path, bytes(columns, Some(texts))).unwrap();
    load(&path, &Cancel::new())
}

/// Refused for this field of the file, with this message.
fn refused(columns: &[Column], texts: Value, want: &str) {
    let error = read(columns, texts).unwrap_err();
    let Error::Format { field, message, .. } = &error else { panic!("{error}") };
    assert_eq!(format!("{field}: {message}"), want);
}

#[test]
fn files_as_they_should_be() {
    let mut columns = dense();
    let found = read(&columns, texts()).unwrap();
    assert_eq!((found.pool, found.done), (vec![2, 5, 9], vec![1, 0, 1]));
    assert_eq!((found.values, found.redundancy), (Values::Dense(DENSE.to_vec()), None));
    assert_eq!((found.known, found.metadata["estimator"].as_str()), (None, "exact"));
    columns.push(column("redundancy", "F32", &[3, 3], floats(&[0.5; 9])));
    columns.push(column("known", "U8", &[1], vec![5]));
    let found = read(&columns, texts()).unwrap();
    assert_eq!((found.redundancy, found.known), (Some(vec![0.5; 9]), Some(vec![5])));
    let csr = CsrArrays {
        indptr: vec![0, 2, 3, 4],
        indices: vec![1, 2, 0, 0],
        values: vec![1.0, 2.0, 1.0, 2.0],
    };
    assert_eq!(read(&sparse(), texts()).unwrap().values, Values::Sparse(csr));
    // A signed file may have what a clipped one may not.
    changed(&mut columns, "values").data = floats(&[0.0, -1.0, 0.0, -1.0, 0.0, 0.0, 0.0, 0.0, 0.0]);
    let signed =
        json!({"direction": "denoising", "estimator": "", "form": "signed", "n_prompts": "1"});
    assert!(read(&columns, signed).is_ok());
    refused(&columns, texts(), "values: has -1, must be at least 0 when clipped");
}

#[test]
fn texts_that_are_wrong() {
    for (key, value, want) in [
        ("direction", Some("up"), "direction: is \"up\", must be \"noising\" or \"denoising\""),
        ("form", Some("raw"), "form: is \"raw\", must be \"clipped\" or \"signed\""),
        ("n_prompts", Some("0"), "n_prompts: is \"0\", must be a number from 1 on"),
        ("n_prompts", Some("many"), "n_prompts: is \"many\", must be a number from 1 on"),
        ("direction", None, "direction: is missing in the metadata"),
        ("estimator", None, "estimator: is missing in the metadata"),
        ("form", None, "form: is missing in the metadata"),
        ("n_prompts", None, "n_prompts: is missing in the metadata"),
    ] {
        let mut texts = texts();
        match value {
            Some(value) => texts[key] = json!(value),
            None => drop(texts.as_object_mut().unwrap().remove(key)),
        }
        refused(&dense(), texts, want);
    }
}

#[test]
fn tensors_that_are_wrong() {
    for (name, new, want) in [
        (
            "pool",
            column("pool", "U32", &[3], ints(&[2, 2, 9])),
            "pool: has 2 before 2, must ascend",
        ),
        ("pool", column("pool", "I32", &[3], ints(&[2, 5, 9])), "pool: has dtype I32, must be U32"),
        (
            "pool",
            column("pool", "U32", &[1, 3], ints(&[2, 5, 9])),
            "pool: has shape [1, 3], must have one dimension",
        ),
        ("done", column("done", "U8", &[3], vec![1, 2, 1]), "done: has 2, must be 0 or 1"),
        ("done", column("done", "U8", &[2], vec![1, 1]), "done: has shape [2], must be [3]"),
        (
            "values",
            column("values", "F32", &[9], floats(&DENSE)),
            "values: has shape [9], must be [3, 3]",
        ),
        (
            "values",
            column(
                "values",
                "F32",
                &[3, 3],
                floats(&[0.0, 1.0, 0.0, 2.0, 0.0, 0.0, 0.0, 0.0, 0.0]),
            ),
            "values: synergy is not symmetric: [1, 0] is 2 but [0, 1] is 1",
        ),
    ] {
        let mut columns = dense();
        *changed(&mut columns, name) = new;
        let error = read(&columns, texts()).unwrap_err().to_string();
        // Either triangle may be the one that is named.
        let mirrored = want.replace("[1, 0] is 2 but [0, 1] is 1", "[0, 1] is 1 but [1, 0] is 2");
        assert!(error.ends_with(want) || error.ends_with(&mirrored), "{error} / {want}");
    }
    for (name, shape, data, want) in [
        ("redundancy", vec![9], floats(&[0.0; 9]), "redundancy: has shape [9], must be [3, 3]"),
        (
            "redundancy",
            vec![3, 3],
            floats(&[f32::NAN; 9]),
            "redundancy: synergy[0, 0] is NaN, must be finite",
        ),
    ] {
        let mut columns = dense();
        columns.push(column(name, "F32", &shape, data));
        refused(&columns, texts(), want);
    }
    let mut columns = dense();
    columns.push(column("known", "U8", &[2], vec![1, 1]));
    refused(&columns, texts(), "known: has shape [2], must be [1]");
    for (name, new, want) in [
        ("indptr", numbers(&[0, 2, 3, 5]), "values: indptr goes from 0 to 5, must go from 0 to 4"),
        ("indices", ints(&[1, 2, 0, 3]), "values: row 2 of synergy has column 3, must be in 0..3"),
        (
            "values",
            floats(&[1.0, 2.0, 1.0, 3.0]),
            "values: synergy is not symmetric: [0, 2] is 2 but [2, 0] is 3",
        ),
    ] {
        let mut columns = sparse();
        changed(&mut columns, name).data = new;
        refused(&columns, texts(), want);
    }
}

#[test]
fn pairs_that_cannot_be_ranked() {
    let top = |joint: &[f32], single: &[f64]| {
        let pairs = Importances { joint, single, clipped: false };
        top_per_row(pairs, 2, false, None, &Cancel::new()).unwrap_err().to_string()
    };
    let length = "joint has length 2, must be 3 for 3 candidates";
    assert_eq!(top(&[1.0, 2.0], &[0.0; 3]), length);
    assert_eq!(top(&[1.0; 3], &[0.0, f64::NAN, 0.0]), "single[1] is NaN, must be finite");
    let infinite = top(&[1.0, 2.0, f32::INFINITY], &[0.0; 3]);
    assert_eq!(infinite, "synergy of (1, 2) is inf, must be finite");
    let length = "packed has length 2, must be 3 for 3 candidates";
    assert_eq!(unpack(&[1.0, 2.0], 3, &Cancel::new()).unwrap_err().to_string(), length);
}

/// Labels spread over strong pairs until nothing changes.
fn spread(w: &[f32], n: usize, threshold: f64) -> Vec<i64> {
    let mut labels: Vec<i64> = (0..n as i64).collect();
    for _ in 0..n {
        for (i, j) in (0..n).flat_map(|i| (0..n).map(move |j| (i, j))) {
            if i != j && f64::from(w[i * n + j]) >= threshold {
                labels[i] = labels[i].min(labels[j]);
            }
        }
    }
    labels
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn groups_are_what_strong_pairs_connect(
        n in 0_usize..14,
        upper in prop::collection::vec(-1_i8..4, 200),
        rare in 1_usize..9,
    ) {
        let mut w = vec![0.0_f32; n * n];
        let csr = |w: &[f32]| {
            let (mut indptr, mut indices, mut values) = (vec![0_i64], vec![], vec![]);
            for i in 0..n {
                for j in (0..n).filter(|&j| w[i * n + j] != 0.0) {
                    indices.push(j as i32);
                    values.push(w[i * n + j]);
                }
                indptr.push(indices.len() as i64);
            }
            (indptr, indices, values)
        };
        for (i, j) in (0..n).flat_map(|i| (i..n).map(move |j| (i, j))) {
            let value = if (i * 31 + j * 17) % rare == 0 { upper[i * n + j].into() } else { 0.0 };
            (w[i * n + j], w[j * n + i]) = (value, value);
        }
        let (indptr, indices, values) = csr(&w);
        let sparse = Csr::new(&indptr, &indices, &values).unwrap();
        for threshold in [0.5, 1.0, 2.5, 3.0, 4.0] {
            let want = spread(&w, n, threshold);
            prop_assert_eq!(&clusters(&w, n, threshold, &Cancel::new()).unwrap(), &want);
            prop_assert_eq!(&clusters_sparse(&sparse, threshold, &Cancel::new()).unwrap(), &want);
        }
    }
}

#[test]
fn thresholds_that_say_nothing() {
    for threshold in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        let want = format!("threshold is {threshold}, must be above 0 and finite");
        assert_eq!(clusters(&DENSE, 3, threshold, &Cancel::new()).unwrap_err().to_string(), want);
        let (indptr, indices, values) = ([0, 0], [0_i32; 0], [0.0; 0]);
        let csr = Csr::new(&indptr, &indices, &values).unwrap();
        assert_eq!(clusters_sparse(&csr, threshold, &Cancel::new()).unwrap_err().to_string(), want);
    }
    let error = clusters(&DENSE, 2, 1.0, &Cancel::new()).unwrap_err().to_string();
    assert_eq!(error, "matrix holds 9 numbers, must be 2 x 2");
}
