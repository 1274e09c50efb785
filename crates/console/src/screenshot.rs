//! Pictures in files.

use device::screen::Surface;
use std::io::{self, Write};

/// Writes a PNG (8 bits a colour).
pub fn write_png(surface: &Surface, into: impl Write) -> io::Result<()> {
    let failed = |error: png::EncodingError| match error {
        png::EncodingError::IoError(error) => error,
        other => io::Error::new(io::ErrorKind::InvalidInput, other),
    };
    let mut encoder = png::Encoder::new(into, surface.width, surface.height);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    let mut writer = encoder.write_header().map_err(failed)?;
    writer.write_image_data(&rgb(surface)).map_err(failed)?;
    writer.finish().map_err(failed)
}

/// Writes a binary PPM (Netpbm's P6), as QEMU's `screendump` does.
pub fn write_ppm(surface: &Surface, mut into: impl Write) -> io::Result<()> {
    write!(into, "P6\n{} {}\n255\n", surface.width, surface.height)?;
    into.write_all(&rgb(surface))?;
    into.flush()
}

fn rgb(surface: &Surface) -> Vec<u8> {
    surface
        .pixels
        .iter()
        .flat_map(|pixel| [(pixel >> 16) as u8, (pixel >> 8) as u8, *pixel as u8])
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Surface {
        Surface {
            width: 2,
            height: 1,
            pixels: vec![0x00ff_8001, 0xff00_0203],
        }
    }

    #[test]
    fn ppm() {
        let mut file = Vec::new();
        write_ppm(&sample(), &mut file).unwrap();
        assert_eq!(file, b"P6\n2 1\n255\n\xff\x80\x01\x00\x02\x03");
    }

    #[test]
    fn png_reads_back() {
        let mut file = Vec::new();
        write_png(&sample(), &mut file).unwrap();
        let mut reader = png::Decoder::new(io::Cursor::new(file))
            .read_info()
            .unwrap();
        let mut back = vec![0; reader.output_buffer_size().unwrap()];
        let info = reader.next_frame(&mut back).unwrap();
        assert_eq!(
            (info.width, info.height, info.color_type),
            (2, 1, png::ColorType::Rgb)
        );
        assert_eq!(&back[..6], [0xff, 0x80, 0x01, 0x00, 0x02, 0x03]);
        assert!(write_png(&Surface::new(0, 0), Vec::new()).is_err());
    }
}
