//! The header of a safetensors file, beside the reference implementation.
//!
//! Input: the JSON up to the first zero byte, then the data.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pie_fast_core::file::Source;
use pie_fast_core::header::{Header, element_size};
use pie_fast_fuzz::write;
use safetensors::SafeTensors;

fuzz_target!(|data: &[u8]| {
    let end = data.iter().position(|&byte| byte == 0).unwrap_or(data.len());
    let mut file = (end as u64).to_le_bytes().to_vec();
    file.extend_from_slice(&data[..end]);
    file.extend_from_slice(data.get(end + 1..).unwrap_or(&[]));
    let source = Source::open(write("header", &file)).expect("just written");
    let ours = Header::read(&source);
    let Ok((_, theirs)) = SafeTensors::read_metadata(&file) else {
        return;
    };
    // What the reference takes we take as well, unless a name is there twice.
    let theirs = theirs.tensors();
    match ours {
        Ok(ours) => {
            assert_eq!(ours.tensors.len(), theirs.len());
            for tensor in &ours.tensors {
                let known = &theirs[&tensor.name];
                assert_eq!(tensor.shape, known.shape);
                let data = 8 + end;
                let range = (tensor.offset as usize - data, tensor.bytes as usize);
                assert_eq!(range, (known.data_offsets.0, known.data_offsets.1 - range.0));
                assert!(tensor.offset + tensor.bytes <= source.len());
                if let Some(size) = element_size(&tensor.dtype) {
                    let n: usize = tensor.shape.iter().product();
                    assert_eq!(n as u64 * size, tensor.bytes);
                }
            }
        }
        Err(error) => {
            let message = error.to_string();
            assert!(message.contains("is there twice"), "{message}");
        }
    }
});
