//! Delphi caches of one or two files: files, layer, start, last, width, first and number of
//! sequences (a byte each, 255 for an extreme one), the length of the first file, both files.
#![no_main]

use libfuzzer_sys::{arbitrary::Unstructured, fuzz_target};
use pie_fast_core::delphi::{Cache, SplitFile, integer_matrix};
use pie_fast_fuzz::write;

/// A byte as a number; the last few are the ends of the range.
fn extreme(byte: u8) -> u64 {
    match byte {
        255 => u64::MAX,
        254 => i64::MAX as u64,
        253 => u64::from(u32::MAX),
        _ => u64::from(byte),
    }
}

fuzz_target!(|data: &[u8]| {
    let mut u = Unstructured::new(data);
    let mut byte = || u.arbitrary::<u8>().unwrap_or(0);
    let two = byte() % 2 == 1;
    let (layer, start, last) = (extreme(byte()), extreme(byte()), extreme(byte()));
    let (width, first, n) = (extreme(byte()), extreme(byte()), u64::from(byte()));
    let cut = usize::from(u.arbitrary::<u16>().unwrap_or(0));
    let rest = u.take_rest();
    let (a, b) = rest.split_at(cut.min(rest.len()));
    let mut files = Vec::new();
    for (name, bytes) in [("a", a), ("b", b)] {
        let path = write(name, bytes);
        let matrix = integer_matrix(path.clone(), "locations");
        if let Ok(Some((values, columns))) = matrix {
            assert!(columns == 0 || values.len() % columns == 0);
        }
        files.push(SplitFile { path, layer, start, last: Some(last).filter(|&last| last != 0) });
    }
    if !two {
        files.pop();
    }
    let Ok(cache) = Cache::open(files) else { return };
    let _ = cache.width();
    let whole = cache.entries(0, n, width);
    let _ = cache.entries(first, n, width);
    let Ok(entries) = whole else { return };
    assert_eq!(entries.prompt_ptr.len() as u64, n + 1);
    assert!(entries.prompt_ptr.is_sorted() && entries.prompt_ptr[0] == 0);
    assert_eq!(entries.prompt_ptr[n as usize] as usize, entries.feature.len());
    assert!(entries.feature.len() as u64 <= cache.n_entries());
    assert!(entries.activation.iter().all(|a| a.is_finite()));
    for two in entries.prompt_ptr.windows(2) {
        let range = two[0] as usize..two[1] as usize;
        let pair = |i: usize| (entries.feature[i], entries.position[i]);
        assert!(range.clone().skip(1).all(|i| pair(i - 1) < pair(i)));
        assert!(range.clone().all(|i| u64::from(entries.feature[i]) / width == layer));
    }
});
