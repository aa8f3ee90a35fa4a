//! A shard as it is, under a manifest that agrees with it: layers, features, prompts (a byte each),
//! entries (two bytes), then the file.
#![no_main]

use libfuzzer_sys::{arbitrary::Unstructured, fuzz_target};
use pie_fast_core::dump::Dump;
use pie_fast_fuzz::{folder, manifest, shard_line, use_dump, write};

fuzz_target!(|data: &[u8]| {
    let mut u = Unstructured::new(data);
    let mut byte = || usize::from(u.arbitrary::<u8>().unwrap_or(0));
    let (n_layers, n_features, n_prompts) = (byte(), byte(), byte());
    let n_active = byte() + (byte() << 8);
    let file = u.take_rest();
    write("shard", file);
    let line = shard_line("shard", 0, n_prompts, n_active, file.len());
    let text = manifest(n_layers as u64, n_features as u64, n_prompts, &[line]);
    write("manifest.json", text.as_bytes());
    if let Ok(dump) = Dump::open(folder()) {
        assert_eq!(dump.n_active(), n_active as u64);
        use_dump(&dump);
    }
});
