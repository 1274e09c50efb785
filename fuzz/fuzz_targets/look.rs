//! What the targets of image formats do with an image that opened.

use dormer_storage::format::Source;

/// Maps and reads parts of an image, that far apart.
pub fn look(image: &dyn Source, step: usize) {
    let mut buffer = [0; 4096];
    let size = image.size();
    for at in (0..size).step_by(step).take(64) {
        let count = (size - at).min(4096) as usize;
        let _ = image.extent(at, size - at);
        let _ = image.read(at, &mut buffer[..count]);
    }
}
