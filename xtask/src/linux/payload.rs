//! The kernel proper out of a bootable kernel image: an ELF file, which the image carries compressed.
//!
//! Layout of the header: Linux `Documentation/arch/x86/boot.rst`, version 2.08 of the protocol and later. The file is the
//! distribution's; one that is not as it says ends in an error.

use std::io::Read;

use anyhow::{Context, Result, bail};

/// Largest vmlinux that is unpacked, in bytes.
const LARGEST: u64 = 1 << 30;
/// Largest block of the legacy LZ4 stream, in bytes (LZ4's frame format, "Legacy frame").
const LZ4_BLOCK: usize = 8 << 20;
/// What the ways to compress begin with.
const LZ4: &[u8] = &[0x02, 0x21, 0x4C, 0x18];
const ZSTD: &[u8] = &[0x28, 0xB5, 0x2F, 0xFD];
const XZ: &[u8] = &[0xFD, b'7', b'z', b'X', b'Z', 0];
const GZIP: &[u8] = &[0x1F, 0x8B];
const ELF: &[u8] = b"\x7FELF";

fn number(bytes: &[u8], at: usize) -> Result<usize> {
    let field = bytes.get(at..at + 4).context("the kernel ends within its header")?;
    Ok(u32::from_le_bytes(field.try_into()?) as usize)
}

/// The `vmlinux` in a kernel image (a bzImage).
///
/// # Errors
/// The file is no such image, is damaged, or is compressed in a way that is not known here.
pub fn vmlinux(image: &[u8]) -> Result<Vec<u8>> {
    if image.get(0x202..0x206) != Some(b"HdrS") || number(image, 0x206)? & 0xFFFF < 0x208 {
        bail!("this is no bootable kernel image (bzImage) of protocol 2.08 or later");
    }
    // A file of the oldest kernels says 0 for 4 sectors; one more is the boot sector.
    let sectors = match image[0x1F1] {
        0 => 4,
        sectors => usize::from(sectors),
    };
    let start = (sectors + 1) * 512 + number(image, 0x248)?;
    let payload = image.get(start..start + number(image, 0x24C)?).context("the kernel ends within its payload")?;
    let elf = unpack(payload)?;
    if !elf.starts_with(ELF) {
        bail!("what the kernel image carries is no ELF file");
    }
    Ok(elf)
}

fn unpack(payload: &[u8]) -> Result<Vec<u8>> {
    if payload.starts_with(LZ4) {
        return lz4(&payload[LZ4.len()..]);
    }
    if payload.starts_with(ELF) {
        return Ok(payload.to_vec());
    }
    // Behind the compressed stream stands the size of what it unpacks to.
    let all = |mut reader: Box<dyn Read + '_>| {
        let mut out = Vec::new();
        reader.by_ref().take(LARGEST).read_to_end(&mut out)?;
        Ok(out)
    };
    if payload.starts_with(ZSTD) {
        let reader = ruzstd::decoding::StreamingDecoder::new(payload)?;
        all(Box::new(reader))
    } else if payload.starts_with(XZ) {
        all(Box::new(lzma_rust2::XzReader::new(payload, false)))
    } else if payload.starts_with(GZIP) {
        all(Box::new(flate2::read::GzDecoder::new(payload)))
    } else {
        bail!("the kernel is compressed in a way not known here (LZ4, zstd, xz and gzip are)")
    }
}

/// The blocks of a legacy LZ4 stream, each with its size before it.
fn lz4(mut stream: &[u8]) -> Result<Vec<u8>> {
    let mut out = Vec::new();
    while stream.len() > 4 {
        let size = number(stream, 0)?;
        stream = &stream[4..];
        // Another stream may follow.
        if size.to_le_bytes().starts_with(LZ4) {
            continue;
        }
        let block = stream.get(..size).context("a block of LZ4 ends behind the payload")?;
        out.extend(lz4_flex::block::decompress(block, LZ4_BLOCK)?);
        stream = &stream[size..];
    }
    Ok(out)
}

/// Unpacks a module's file: 6.1 has them plain, later kernels compressed with xz.
///
/// # Errors
/// The file is damaged, or compressed in another way.
pub fn module(file: Vec<u8>) -> Result<Vec<u8>> {
    if file.starts_with(ELF) { Ok(file) } else { unpack(&file) }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    /// A kernel image with that payload.
    fn image(payload: &[u8]) -> Vec<u8> {
        let mut image = vec![0; 0x400];
        image[0x1F1] = 1;
        image[0x202..0x206].copy_from_slice(b"HdrS");
        image[0x206..0x208].copy_from_slice(&0x20F_u16.to_le_bytes());
        image[0x24C..0x250].copy_from_slice(&u32::try_from(payload.len()).unwrap().to_le_bytes());
        image.extend(payload);
        image
    }

    fn elf() -> Vec<u8> {
        [ELF, &b"and the rest of it ".repeat(1000)].concat()
    }

    #[test]
    fn a_kernel_is_unpacked_however_it_is_compressed() {
        let elf = elf();
        let size = u32::try_from(elf.len()).unwrap().to_le_bytes();
        let block = lz4_flex::block::compress(&elf);
        let lz4 = [LZ4, &u32::try_from(block.len()).unwrap().to_le_bytes(), &block, &size].concat();
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(&elf).unwrap();
        let gzip = [gzip.finish().unwrap().as_slice(), &size].concat();
        let zstd = ruzstd::encoding::compress_to_vec(elf.as_slice(), ruzstd::encoding::CompressionLevel::Fastest);
        let zstd = [zstd.as_slice(), &size].concat();
        let mut xz = lzma_rust2::XzWriter::new(Vec::new(), lzma_rust2::XzOptions::with_preset(1)).unwrap();
        xz.write_all(&elf).unwrap();
        let xz = [xz.finish().unwrap().as_slice(), &size].concat();
        for payload in [lz4, gzip, zstd, xz, elf.clone()] {
            assert!(vmlinux(&image(&payload)).unwrap() == elf, "begins with {:x?}", &payload[..4]);
        }
    }

    #[test]
    fn what_is_no_kernel_is_refused() {
        let good = image(&elf());
        let mut old = good.clone();
        old[0x206] = 7;
        for bad in [&b"MZ"[..], &good[..0x300], &good[..0x500], &old, &image(b"no such compression")] {
            assert!(vmlinux(bad).is_err());
        }
    }
}
