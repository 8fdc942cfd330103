//! What a document's content is, told from its bytes as they come: never by its name, never by what a caller says it is.

use aws_lc_rs::digest;

use crate::error::{Error, Result};

/// The most bytes of a document (VER-3).
pub const MOST_BYTES: u64 = 10 * 1_024 * 1_024;
/// What is kept of the end: all three types end within so many bytes.
const TAIL_BYTES: usize = 1_024;
/// What is kept of the beginning.
const HEAD_BYTES: usize = 32;

/// The types that documents may have.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MediaType {
    /// `application/pdf`
    Pdf,
    /// `image/png`
    Png,
    /// `image/jpeg`
    Jpeg,
}

const PNG_BEGIN: &[u8] = b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR";
const PNG_END: &[u8] = b"\0\0\0\0IEND\xae\x42\x60\x82";

impl MediaType {
    /// Its name (RFC 6838).
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Pdf => "application/pdf",
            Self::Png => "image/png",
            Self::Jpeg => "image/jpeg",
        }
    }

    /// What begins so.
    fn of_beginning(head: &[u8]) -> Option<Self> {
        if head.starts_with(b"%PDF-1.") || head.starts_with(b"%PDF-2.") {
            Some(Self::Pdf)
        } else if head.starts_with(PNG_BEGIN) {
            // Width and height.
            let (width, height) = (head.get(16..20)?, head.get(20..24)?);
            (width != [0; 4] && height != [0; 4]).then_some(Self::Png)
        } else if head.starts_with(b"\xff\xd8\xff") {
            // A table, a frame, or what an application adds.
            matches!(head.get(3)?, 0xc0..=0xcf | 0xdb | 0xdd | 0xe0..=0xef | 0xfe)
                .then_some(Self::Jpeg)
        } else {
            None
        }
    }

    /// Whether it ends as its type does: what was cut is none.
    fn ends_so(self, tail: &[u8]) -> bool {
        match self {
            Self::Pdf => holds(tail, b"startxref") && holds(tail, b"%%EOF"),
            Self::Png => tail.ends_with(PNG_END),
            Self::Jpeg => holds(tail, b"\xff\xd9"),
        }
    }
}

fn holds(bytes: &[u8], what: &[u8]) -> bool {
    bytes.windows(what.len()).any(|window| window == what)
}

/// What came.
#[derive(Clone, Debug)]
pub struct Content {
    /// Bytes.
    pub size: u64,
    /// Its hash.
    pub sha256: [u8; 32],
    /// Its type.
    pub media_type: MediaType,
}

/// Looks at content as it comes, and keeps nearly nothing of it.
pub struct Watched {
    size: u64,
    head: Vec<u8>,
    tail: Vec<u8>,
    hash: digest::Context,
}

impl Default for Watched {
    fn default() -> Self {
        Self {
            size: 0,
            head: Vec::with_capacity(HEAD_BYTES),
            tail: Vec::with_capacity(2 * TAIL_BYTES),
            hash: digest::Context::new(&digest::SHA256),
        }
    }
}

fn wrong_type() -> Error {
    Error::field("content", "is no whole PDF, PNG or JPEG file")
}

impl Watched {
    /// Takes further bytes.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` as soon as there are too many, or as they begin like no type that is taken.
    pub fn take(&mut self, bytes: &[u8]) -> Result<()> {
        self.size = self.size.saturating_add(bytes.len() as u64);
        if self.size > MOST_BYTES {
            return Err(Error::field(
                "content",
                "has more than 10 MiB, the most that a document may have",
            ));
        }
        let lacks = HEAD_BYTES - self.head.len();
        self.head
            .extend_from_slice(&bytes[..lacks.min(bytes.len())]);
        if lacks > 0
            && self.head.len() == HEAD_BYTES
            && MediaType::of_beginning(&self.head).is_none()
        {
            return Err(wrong_type());
        }
        self.hash.update(bytes);
        let last = &bytes[bytes.len().saturating_sub(TAIL_BYTES)..];
        self.tail.extend_from_slice(last);
        let surplus = self.tail.len().saturating_sub(TAIL_BYTES);
        self.tail.drain(..surplus);
        Ok(())
    }

    /// All came.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` if it is of no type that is taken, or not whole.
    pub fn end(self) -> Result<Content> {
        let media_type = MediaType::of_beginning(&self.head)
            .filter(|kind| kind.ends_so(&self.tail))
            .ok_or_else(wrong_type)?;
        let mut sha256 = [0; 32];
        sha256.copy_from_slice(self.hash.finish().as_ref());
        Ok(Content {
            size: self.size,
            sha256,
            media_type,
        })
    }
}

/// Characters that turn the direction of text or can't be seen: a name with them isn't what it looks like.
#[must_use]
pub fn misleads(c: char) -> bool {
    matches!(c, '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

/// The name of a file without path, control characters and such that mislead; `document` if nothing is left.
#[must_use]
pub fn file_name(said: &str) -> String {
    let last = said.rsplit(['/', '\\']).next().unwrap_or_default();
    let clean: String = last
        .chars()
        .filter(|c| !c.is_control() && !misleads(*c))
        .take(200)
        .collect();
    let clean = clean.trim_matches(|c: char| c.is_whitespace() || c == '.');
    if clean.is_empty() {
        "document".to_owned()
    } else {
        clean.to_owned()
    }
}

/// A `Content-Disposition` (RFC 6266) by which a browser stores the file and never shows it.
#[must_use]
pub fn as_attachment(name: &str) -> String {
    use std::fmt::Write as _;
    let plain: String = name
        .chars()
        .map(|c| match c {
            ' '..='~' if !matches!(c, '"' | '\\' | '%') => c,
            _ => '_',
        })
        .collect();
    let mut exact = String::new();
    for byte in name.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' => {
                exact.push(char::from(byte));
            }
            // Writing to a String can't fail.
            _ => write!(exact, "%{byte:02X}").unwrap_or_default(),
        }
    }
    format!("attachment; filename=\"{plain}\"; filename*=UTF-8''{exact}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn looked(bytes: &[u8], chunk: usize) -> Result<Content> {
        let mut watched = Watched::default();
        for part in bytes.chunks(chunk) {
            watched.take(part)?;
        }
        watched.end()
    }

    fn png() -> Vec<u8> {
        let mut bytes = PNG_BEGIN.to_vec();
        bytes.extend([0, 0, 0, 1, 0, 0, 0, 1, 8, 0, 0, 0, 0]);
        bytes.extend([7; 3_000]);
        bytes.extend(PNG_END);
        bytes
    }

    // proves VER-3
    #[test]
    fn a_type_is_told_by_beginning_and_end_however_the_bytes_come() {
        let pdf = b"%PDF-1.7\n1 0 obj\nendobj\nstartxref\n9\n%%EOF\n".to_vec();
        let jpeg = b"\xff\xd8\xff\xe0\0\x10JFIF\0 and so on, for some bytes more \xff\xd9".to_vec();
        for (bytes, kind) in [
            (pdf, MediaType::Pdf),
            (png(), MediaType::Png),
            (jpeg, MediaType::Jpeg),
        ] {
            for chunk in [1, 7, 4_096] {
                let found = looked(&bytes, chunk).expect("good");
                assert_eq!(found.media_type, kind);
                assert_eq!(found.size, bytes.len() as u64);
                let whole = digest::digest(&digest::SHA256, &bytes);
                assert_eq!(found.sha256, whole.as_ref());
            }
            let cut = &bytes[..bytes.len() - 8];
            assert!(looked(cut, 9).is_err(), "{kind:?} cut");
        }
        for bad in [
            &b""[..],
            b"<html><script>alert(1)</script></html> and more of it",
            b"GIF89a",
            b"\xff\xd8\xff",
            b" %PDF-1.7 startxref %%EOF",
        ] {
            assert!(looked(bad, 5).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn too_much_is_refused_at_the_bound() {
        let mut watched = Watched::default();
        let chunk = vec![b' '; 1_024 * 1_024];
        watched
            .take(b"%PDF-1.7\n                                  ")
            .expect("begins well");
        for _ in 0..9 {
            watched.take(&chunk).expect("within the bound");
        }
        assert!(watched.take(&chunk).is_err());
    }

    #[test]
    fn names_of_files_are_names_and_nothing_else() {
        for (said, kept) in [
            ("passport.pdf", "passport.pdf"),
            ("../../etc/passwd", "passwd"),
            ("C:\\temp\\a b.png", "a b.png"),
            ("invoice\u{202e}fdp.exe", "invoicefdp.exe"),
            ("a\r\nb\u{0}.pdf", "ab.pdf"),
            ("..", "document"),
            ("/", "document"),
            ("\u{200f}\u{feff}", "document"),
        ] {
            assert_eq!(file_name(said), kept, "{said:?}");
        }
        assert_eq!(file_name(&"é".repeat(300)).chars().count(), 200);
    }

    #[test]
    fn a_disposition_can_not_be_broken_out_of() {
        let text = as_attachment("a\"; x=\"é%\\.pdf");
        assert_eq!(
            text,
            "attachment; filename=\"a_; x=____.pdf\"; filename*=UTF-8''a%22%3B%20x%3D%22%C3%A9%25%5C.pdf"
        );
    }
}
