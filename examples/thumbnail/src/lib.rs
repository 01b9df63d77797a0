//! A handler that makes small pictures of a photograph: `{"job_type": "thumbnail", "photo": "lake.jpg", "widths": [64, 256]}`.
//!
//! It reads `/photos/lake.jpg` and writes `/thumbs/lake-64.jpg` and `/thumbs/lake-256.jpg`, and completes with what it wrote. A file
//! that is no picture will never be one: that is a reject.

use std::io::ErrorKind;
use std::path::Path;

use image::codecs::jpeg::JpegEncoder;
use image::imageops::FilterType;
use image::{DynamicImage, ImageReader};
use sandhog_guest::prelude::*;
use serde::{Deserialize, Serialize};

/// Wider ones are no thumbnails.
const WIDTH_MAX: u32 = 2048;

/// Of JPEG, from 1 to 100.
const QUALITY: u8 = 82;

#[derive(Deserialize)]
struct Wanted {
    photo: String,
    widths: Vec<u32>,
}

#[derive(Debug, PartialEq, Serialize)]
struct Thumbnail {
    file: String,
    width: u32,
    height: u32,
}

fn handle(job: Job) -> Result<Outcome, Error> {
    let wanted: Wanted = job.parse()?;
    make(&wanted, Path::new("/photos"), Path::new("/thumbs"))
}

fn make(wanted: &Wanted, photos: &Path, thumbs: &Path) -> Result<Outcome, Error> {
    if let Some(width) = wanted.widths.iter().find(|width| !(1..=WIDTH_MAX).contains(*width)) {
        return Ok(Outcome::reject(format!("a width of {width}: it must be from 1 to {WIDTH_MAX}")));
    }
    let bytes = match std::fs::read(photos.join(&wanted.photo)) {
        Ok(bytes) => bytes,
        // Whoever uploads it may not be done yet.
        Err(error) if error.kind() == ErrorKind::NotFound && !wanted.photo.contains("..") => {
            return Ok(Retry::after(Duration::from_secs(2)).because("there is no such photo yet").into());
        }
        Err(error) => return Err(Error::from(error).context(format_args!("cannot read `{}`", wanted.photo))),
    };
    let photo = match ImageReader::new(std::io::Cursor::new(bytes)).with_guessed_format()?.decode() {
        Ok(photo) => photo,
        Err(error) => return Ok(Outcome::reject(format!("`{}` is no picture: {error}", wanted.photo))),
    };
    info!("{} is {} by {}", wanted.photo, photo.width(), photo.height());
    let made = wanted.widths.iter().map(|width| write(&photo, &wanted.photo, *width, thumbs));
    Outcome::complete(&made.collect::<Result<Vec<_>, _>>()?)
}

fn write(photo: &DynamicImage, name: &str, width: u32, thumbs: &Path) -> Result<Thumbnail, Error> {
    let width = width.min(photo.width());
    let height = (u64::from(photo.height()) * u64::from(width)).div_ceil(u64::from(photo.width()));
    let height = u32::try_from(height)?;
    let small = photo.resize_exact(width, height, FilterType::Triangle).into_rgb8();
    let stem = Path::new(name).file_stem().unwrap_or_default().to_string_lossy();
    let file = format!("{stem}-{width}.jpg");
    let mut bytes = Vec::new();
    small.write_with_encoder(JpegEncoder::new_with_quality(&mut bytes, QUALITY))?;
    std::fs::write(thumbs.join(&file), bytes)
        .map_err(|e| Error::from(e).context(format_args!("cannot write `{file}`")))?;
    Ok(Thumbnail { file, width, height })
}

sandhog_guest::handler!(handle);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_that_is_no_picture_is_rejected_and_one_that_is_missing_waited_for() {
        let folder = std::env::temp_dir();
        std::fs::write(folder.join("thumbnail-test.txt"), "text").unwrap();
        let wanted = |photo: &str| Wanted { photo: photo.to_owned(), widths: vec![64] };
        let outcome = make(&wanted("thumbnail-test.txt"), &folder, &folder).unwrap();
        assert!(matches!(outcome, Outcome::Reject(reason) if reason.contains("is no picture")));
        let outcome = make(&wanted("not-there.jpg"), &folder, &folder).unwrap();
        assert!(matches!(outcome, Outcome::Retry(_)));
    }
}
