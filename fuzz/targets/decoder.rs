//! Rows of a tensor of any safetensors file: axes of a row, four rows (a byte each), the file. The
//! tensor is called `W`.
#![no_main]

use libfuzzer_sys::{arbitrary::Unstructured, fuzz_target};
use pie_fast_core::decoder::Decoder;
use pie_fast_core::dump::FloatType;
use pie_fast_fuzz::write;

/// Numbers that are read at most.
const MANY: usize = 1 << 16;

fuzz_target!(|data: &[u8]| {
    let mut u = Unstructured::new(data);
    let axes = usize::from(u.arbitrary::<u8>().unwrap_or(0) % 4);
    let mut ids = [0i64; 4].map(|_| i64::from(u.arbitrary::<u8>().unwrap_or(0)));
    let file = u.take_rest();
    let path = write("file", file);
    let shape = [ids[0] as usize, ids[1] as usize];
    let raw = Decoder::raw(&path, "raw", FloatType::BF16, &shape, ids[2] as u64);
    assert_eq!(raw.is_ok(), shape[0] * shape[1] * 2 + ids[2] as usize <= file.len());
    let Ok(decoder) = Decoder::open_rows(&path, "W", Some(axes).filter(|&axes| axes > 0)) else {
        return;
    };
    let row: usize = decoder.row_shape().iter().product();
    let mut out = vec![0f32; row.min(MANY) * ids.len()];
    let _ = decoder.rows(&ids, Some(1), &mut out);
    if decoder.n_rows() == 0 || row > MANY {
        return;
    }
    ids.iter_mut().for_each(|id| *id %= decoder.n_rows().min(256) as i64);
    if decoder.rows(&ids, Some(1), &mut out).is_ok() {
        assert!(out.iter().all(|x| x.is_finite()));
        for (place, &id) in ids.iter().enumerate() {
            let mut one = vec![0f32; row];
            decoder.rows(&[id], Some(1), &mut one).expect("read before");
            assert_eq!(one, out[place * row..][..row]);
        }
    }
});
