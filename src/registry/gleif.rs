//! LEI records, from a file of the Global Legal Entity Identifier Foundation: the golden copy in CSV, level 1. The file stays on disk; what is
//! in memory is 16 bytes a record, sorted by a hash of name and country, so 3,000,000 of them take 48 MB. A new file is taken in when the one
//! there changes.

use std::{
    fs::{File, Metadata},
    hash::{DefaultHasher, Hash as _, Hasher as _},
    io::{BufReader, Seek as _, SeekFrom},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::SystemTime,
};

use csv::{ByteRecord, Reader, ReaderBuilder};
use futures_util::future::BoxFuture;
use unicode_normalization::UnicodeNormalization as _;

use super::{Answer, Company, Registry};
use crate::error::{Error, Result};

/// Records of one name in one country that are looked at; with more, the register can't tell.
const MOST_OF_A_NAME: usize = 100;

/// The register, over a file.
pub struct Gleif {
    shared: Arc<Shared>,
}

struct Shared {
    path: PathBuf,
    index: Mutex<Option<Arc<Index>>>,
}

/// Where the records are that count: of active entities, whose registration is in force.
struct Index {
    /// What the file was when it was read.
    stamp: Stamp,
    columns: Columns,
    /// Hash and offset, in order.
    places: Vec<(u64, u64)>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Stamp {
    bytes: u64,
    modified: Option<SystemTime>,
}

impl Stamp {
    fn of(metadata: &Metadata) -> Self {
        Self {
            bytes: metadata.len(),
            modified: metadata.modified().ok(),
        }
    }
}

/// Which column holds what.
#[derive(Clone, Copy, Debug)]
struct Columns {
    lei: usize,
    name: usize,
    country: usize,
    postal_code: usize,
    entity_status: usize,
    registration_status: usize,
}

impl Columns {
    fn of(header: &ByteRecord) -> Result<Self> {
        let find = |name: &str| {
            header
                .iter()
                .position(|field| {
                    field.strip_prefix(b"\xef\xbb\xbf").unwrap_or(field) == name.as_bytes()
                })
                .ok_or_else(|| Error::internal(format!("the LEI file has no column {name}")))
        };
        Ok(Self {
            lei: find("LEI")?,
            name: find("Entity.LegalName")?,
            country: find("Entity.LegalAddress.Country")?,
            postal_code: find("Entity.LegalAddress.PostalCode")?,
            entity_status: find("Entity.EntityStatus")?,
            registration_status: find("Registration.RegistrationStatus")?,
        })
    }
}

fn text(record: &ByteRecord, column: usize) -> std::borrow::Cow<'_, str> {
    String::from_utf8_lossy(record.get(column).unwrap_or_default())
}

/// A text without what is written one way or another: case, width, punctuation, spaces.
fn plain(text: &str) -> String {
    text.nfkc()
        .flat_map(char::to_lowercase)
        .filter(|c| c.is_alphanumeric())
        .collect()
}

fn hash(name: &str, country: &str) -> u64 {
    // The same in each run, since its keys are fixed; what hashes alike is told apart by the record.
    let mut hasher = DefaultHasher::new();
    plain(name).hash(&mut hasher);
    country.to_ascii_uppercase().hash(&mut hasher);
    hasher.finish()
}

fn fault(path: &Path, error: impl std::fmt::Display) -> Error {
    Error::internal(format!("{}: {error}", path.display()))
}

fn reader(path: &Path, header: bool) -> Result<Reader<BufReader<File>>> {
    let file = File::open(path).map_err(|e| fault(path, e))?;
    Ok(ReaderBuilder::new()
        .has_headers(header)
        .flexible(true)
        .from_reader(BufReader::with_capacity(64 * 1_024, file)))
}

impl Index {
    fn read(path: &Path, stamp: Stamp) -> Result<Self> {
        let mut rows = reader(path, true)?;
        let columns = Columns::of(rows.byte_headers().map_err(|e| fault(path, e))?)?;
        let (mut places, mut record) = (Vec::new(), ByteRecord::new());
        while rows
            .read_byte_record(&mut record)
            .map_err(|e| fault(path, e))?
        {
            let is = |column: usize, value: &[u8]| record.get(column) == Some(value);
            if is(columns.entity_status, b"ACTIVE") && is(columns.registration_status, b"ISSUED") {
                let (name, country) = (text(&record, columns.name), text(&record, columns.country));
                let at = record.position().map_or(0, csv::Position::byte);
                places.push((hash(&name, &country), at));
            }
        }
        places.sort_unstable();
        places.shrink_to_fit();
        Ok(Self {
            stamp,
            columns,
            places,
        })
    }

    fn look_up(&self, path: &Path, company: &Company) -> Result<Answer> {
        let wanted = hash(&company.legal_name, &company.country_code);
        let from = self.places.partition_point(|(hash, _)| *hash < wanted);
        let places = self.places.get(from..).unwrap_or_default();
        let places = places
            .get(..places.partition_point(|(hash, _)| *hash == wanted))
            .unwrap_or_default();
        if places.len() > MOST_OF_A_NAME {
            return Ok(Answer::Unknown);
        }
        let (mut named, mut found) = (0, Vec::new());
        for (_, at) in places {
            let mut rows = reader(path, false)?;
            let file = rows.get_mut();
            file.seek(SeekFrom::Start(*at))
                .map_err(|e| fault(path, e))?;
            let mut record = ByteRecord::new();
            rows.read_byte_record(&mut record)
                .map_err(|e| fault(path, e))?;
            let same = |column: usize, value: &str| plain(&text(&record, column)) == plain(value);
            if !same(self.columns.name, &company.legal_name)
                || !same(self.columns.country, &company.country_code)
            {
                continue;
            }
            named += 1;
            // Without a postal code the name alone would decide; that is left to people.
            if !company.postal_code.trim().is_empty()
                && same(self.columns.postal_code, &company.postal_code)
            {
                found.push(text(&record, self.columns.lei).into_owned());
            }
        }
        Ok(match (named, found.pop()) {
            (0, _) => Answer::NoMatch,
            (_, Some(lei)) if found.is_empty() => Answer::Match(lei),
            _ => Answer::Unknown,
        })
    }
}

impl Gleif {
    /// Over a file, which is read when it is asked for the first time.
    #[must_use]
    pub fn new(path: PathBuf) -> Self {
        Self {
            shared: Arc::new(Shared {
                path,
                index: Mutex::new(None),
            }),
        }
    }
}

impl Shared {
    fn look_up(&self, company: &Company) -> Result<Answer> {
        self.index()?.look_up(&self.path, company)
    }

    /// The index of the file as it is now. One asks at a time, so that a new file is read once.
    fn index(&self) -> Result<Arc<Index>> {
        let metadata = std::fs::metadata(&self.path).map_err(|e| fault(&self.path, e))?;
        let stamp = Stamp::of(&metadata);
        let mut index = self.index.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = index.as_ref().filter(|known| known.stamp == stamp) {
            return Ok(Arc::clone(known));
        }
        // The old one goes first: there is never room needed for two.
        *index = None;
        let read = Arc::new(Index::read(&self.path, stamp)?);
        tracing::info!(records = read.places.len(), "the LEI file was read");
        *index = Some(Arc::clone(&read));
        Ok(read)
    }
}

impl Registry for Gleif {
    fn name(&self) -> &'static str {
        "GLEIF"
    }

    fn look_up<'a>(&'a self, company: &'a Company) -> BoxFuture<'a, Result<Answer>> {
        let (shared, company) = (Arc::clone(&self.shared), company.clone());
        Box::pin(async move {
            let asked = tokio::task::spawn_blocking(move || shared.look_up(&company)).await;
            asked.map_err(|e| Error::internal(e.to_string()))?
        })
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    const HEADER: &str = "\"LEI\",\"Entity.LegalName\",\"Entity.LegalAddress.City\",\"Entity.LegalAddress.Country\",\"Entity.LegalAddress.PostalCode\",\
                          \"Entity.EntityStatus\",\"Registration.RegistrationStatus\"";

    fn company(legal_name: &str, country_code: &str, postal_code: &str) -> Company {
        Company {
            legal_name: legal_name.to_owned(),
            country_code: country_code.to_owned(),
            postal_code: postal_code.to_owned(),
        }
    }

    fn written(path: &Path, lines: &[&str]) {
        let mut file = File::create(path).unwrap();
        writeln!(file, "{HEADER}").unwrap();
        for line in lines {
            writeln!(file, "{line}").unwrap();
        }
    }

    // proves VER-4
    #[tokio::test]
    async fn a_record_decides_by_name_country_and_postal_code_and_a_new_file_is_taken_in() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lei.csv");
        written(
            &path,
            &[
                r#""LEI1","Contoso, S.A.","Paris","FR","75008","ACTIVE","ISSUED""#,
                r#""LEI2","Fabrikam
""Two"" SA","Lyon","FR","69001","ACTIVE","ISSUED""#,
                r#""LEI3","Adatum SA","Paris","FR","75001","ACTIVE","ISSUED""#,
                r#""LEI4","Adatum SA","Paris","FR","75001","ACTIVE","ISSUED""#,
                r#""LEI5","Gone SA","Paris","FR","75001","INACTIVE","ISSUED""#,
                r#""LEI6","Lapsed SA","Paris","FR","75001","ACTIVE","LAPSED""#,
                r#""LEI8","Harbour Ltd","Hong Kong","HK","","ACTIVE","ISSUED""#,
            ],
        );
        let register = Gleif::new(path.clone());
        for (name, country, code, answer) in [
            (
                "CONTOSO SA",
                "FR",
                "75008",
                Answer::Match("LEI1".to_owned()),
            ),
            ("Contoso SA", "FR", "75009", Answer::Unknown),
            ("Contoso SA", "BE", "75008", Answer::NoMatch),
            (
                "Fabrikam Two SA",
                "FR",
                "69001",
                Answer::Match("LEI2".to_owned()),
            ),
            ("Adatum SA", "FR", "75001", Answer::Unknown),
            ("Gone SA", "FR", "75001", Answer::NoMatch),
            ("Lapsed SA", "FR", "75001", Answer::NoMatch),
            // Without a postal code people decide.
            ("Harbour Ltd", "HK", "", Answer::Unknown),
        ] {
            let told = register.look_up(&company(name, country, code)).await;
            assert_eq!(told.unwrap(), answer, "{name} {country} {code}");
        }
        written(
            &path,
            &[r#""LEI7","Gone SA","Paris","FR","75001","ACTIVE","ISSUED""#],
        );
        let told = register.look_up(&company("Gone SA", "FR", "75001")).await;
        assert_eq!(told.unwrap(), Answer::Match("LEI7".to_owned()));
        std::fs::remove_file(&path).unwrap();
        assert!(
            register
                .look_up(&company("Gone SA", "FR", "75001"))
                .await
                .is_err()
        );
        std::fs::write(&path, "no,such,columns\n").unwrap();
        assert!(
            register
                .look_up(&company("Gone SA", "FR", "75001"))
                .await
                .is_err()
        );
    }

    /// So many records with `ENTENTE_LEI_RECORDS`; what they take in memory is measured, and bounded.
    // proves VER-4
    #[tokio::test]
    async fn a_file_of_many_records_takes_little_memory() {
        let wanted = std::env::var("ENTENTE_LEI_RECORDS").ok();
        let records: u64 = wanted
            .as_ref()
            .map_or(30_000, |n| n.parse().expect("a number of records"));
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lei.csv");
        let mut file = std::io::BufWriter::new(File::create(&path).unwrap());
        writeln!(file, "{HEADER}").unwrap();
        for n in 0..records {
            writeln!(file, "\"LEI{n:016}\",\"Company Number {n} GmbH\",\"Berlin\",\"DE\",\"{:05}\",\"ACTIVE\",\"ISSUED\"", n % 100_000).unwrap();
        }
        file.flush().unwrap();
        drop(file);
        let register = Gleif::new(path);
        let last = records - 1;
        let code = format!("{:05}", last % 100_000);
        let told = register
            .look_up(&company(
                &format!("Company Number {last} GmbH"),
                "DE",
                &code,
            ))
            .await;
        assert_eq!(told.unwrap(), Answer::Match(format!("LEI{last:016}")));
        let index = register.shared.index().unwrap();
        let bytes = index.places.capacity() * size_of::<(u64, u64)>();
        assert!(u64::try_from(bytes).unwrap() <= 17 * records, "{bytes}");
        if let Ok(status) = std::fs::read_to_string("/proc/self/status") {
            let peak = status.lines().find_map(|l| l.strip_prefix("VmHWM:"));
            let peak = peak.unwrap_or("?").trim();
            println!("{records} records: {bytes} bytes of index, at most {peak}");
            // Alone in its process, as `make nightly` runs it.
            if wanted.is_some() {
                let kib: u64 = peak.trim_end_matches(" kB").parse().unwrap();
                assert!(kib <= 200 * 1_024, "{peak}");
            }
        }
    }
}
