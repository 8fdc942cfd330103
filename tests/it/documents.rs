//! Documents (VER-3, VER-7): uploads and downloads, the store of their bytes, and what is left of those that fail.

mod store;

use std::{path::Path, time::Duration};

use aws_lc_rs::digest;
use entente::{
    document::{self, Subject, SubjectKind},
    proto::{
        access::AccountRole,
        account::{
            Document, DownloadDocumentRequest, DownloadDocumentResponse, RemoveMembersRequest,
            ReviewKind, UploadDocumentRequest,
        },
        audit::AuditEvent,
        operator::OperatorRole,
    },
};
use sea_orm::Value;
use tokio::{sync::mpsc, task::JoinHandle};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Response, Status};
use uuid::Uuid;

use crate::{
    claims::{count, replayed},
    harness::{Caller, Site, both, fields, membership, refused, request_id},
    people::{audited, change, denied, events, eventually, id, identity, staff},
    reviews::queued,
};

const MIB: usize = 1_024 * 1_024;

/// A PNG of so many bytes, for whoever doesn't look between beginning and end.
pub fn png(size: usize) -> Vec<u8> {
    let mut bytes = b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR\0\0\0\x01\0\0\0\x01\x08\0\0\0\0".to_vec();
    let end = b"\0\0\0\0IEND\xae\x42\x60\x82";
    let filling = (0..size - bytes.len() - end.len()).map(|i| (i % 251) as u8);
    bytes.extend(filling);
    bytes.extend(end);
    bytes
}

pub fn pdf() -> Vec<u8> {
    b"%PDF-1.7\n1 0 obj\n<<>>\nendobj\nstartxref\n9\n%%EOF\n".to_vec()
}

fn jpeg() -> Vec<u8> {
    b"\xff\xd8\xff\xe0\0\x10JFIF\0\x01\x01 and what an image has \xff\xd9".to_vec()
}

/// The first message of an upload.
pub fn first(parent: &str, name: &str) -> UploadDocumentRequest {
    UploadDocumentRequest {
        parent: parent.to_owned(),
        display_name: name.to_owned(),
        ..UploadDocumentRequest::default()
    }
}

fn part(content: &[u8]) -> UploadDocumentRequest {
    UploadDocumentRequest {
        content: content.to_vec(),
        ..UploadDocumentRequest::default()
    }
}

/// Sends the messages of an upload, all of them.
async fn send(
    caller: &Caller,
    messages: Vec<UploadDocumentRequest>,
) -> Result<Response<Document>, Status> {
    let stream = tokio_stream::iter(messages);
    caller.verification().upload_document(stream).await
}

fn messages(
    begin: UploadDocumentRequest,
    bytes: &[u8],
    chunk: usize,
) -> Vec<UploadDocumentRequest> {
    std::iter::once(begin)
        .chain(bytes.chunks(chunk).map(part))
        .collect()
}

/// Uploads a document in chunks.
pub async fn upload(
    caller: &Caller,
    begin: UploadDocumentRequest,
    bytes: impl AsRef<[u8]>,
    chunk: usize,
) -> Result<Document, Status> {
    let done = send(caller, messages(begin, bytes.as_ref(), chunk)).await;
    done.map(Response::into_inner)
}

/// An upload whose messages come when the test says so.
struct Slow {
    messages: mpsc::Sender<UploadDocumentRequest>,
    call: JoinHandle<Result<Response<Document>, Status>>,
}

impl Slow {
    async fn begin(caller: &Caller, begin: UploadDocumentRequest) -> Self {
        let (messages, receiver) = mpsc::channel(1);
        messages.send(begin).await.unwrap();
        let caller = caller.clone();
        let call = tokio::spawn(async move {
            let stream = ReceiverStream::new(receiver);
            caller.verification().upload_document(stream).await
        });
        Self { messages, call }
    }

    async fn bring(&self, bytes: &[u8]) {
        self.messages.send(part(bytes)).await.unwrap();
    }

    async fn end(self) -> Result<Document, Status> {
        drop(self.messages);
        self.call.await.unwrap().map(Response::into_inner)
    }
}

/// All messages of a download.
pub async fn download(
    caller: &Caller,
    name: &str,
) -> Result<(DownloadDocumentResponse, Vec<u8>), Status> {
    let name = name.to_owned();
    let request = DownloadDocumentRequest { name };
    let mut answer = caller
        .verification()
        .download_document(request)
        .await?
        .into_inner();
    let first = answer.message().await?.unwrap();
    assert_eq!(first.content, b"", "the first message says what comes");
    let mut bytes = Vec::new();
    while let Some(part) = answer.message().await? {
        assert!(part.document.is_none() && part.content_disposition.is_empty());
        bytes.extend(part.content);
    }
    Ok((first, bytes))
}

/// Makes a document evidence for something that reviewers decide.
async fn attach(site: &Site, account: &str, names: &[&str]) -> Result<(), entente::error::Error> {
    let review = queued(site, account, ReviewKind::Offer, "").await;
    let (account, subject) = (id(account), id(&review));
    let names: Vec<String> = names.iter().map(|n| (*n).to_owned()).collect();
    site.app
        .job("attach", move |tx, _| {
            let names = names.clone();
            Box::pin(async move {
                let subject = Subject {
                    kind: SubjectKind::Review,
                    id: subject,
                    account: Some(account),
                };
                document::attach(tx, subject, &names, "documents")
                    .await
                    .map(drop)
            })
        })
        .await
}

/// A document of an account that is evidence for something.
pub async fn evidence(site: &Site, caller: &Caller, account: &str) -> String {
    let receipt = upload(caller, first(account, "evidence.pdf"), pdf(), MIB).await;
    let name = receipt.unwrap().name;
    attach(site, account, &[&name]).await.unwrap();
    name
}

/// Files in a folder and those within.
pub fn files(folder: &Path) -> usize {
    std::fs::read_dir(folder).map_or(0, |entries| {
        let within = |entry: std::fs::DirEntry| match entry.file_type() {
            Ok(kind) if kind.is_dir() => files(&entry.path()),
            _ => 1,
        };
        entries.flatten().map(within).sum()
    })
}

/// Nothing is stored beyond so many documents, as soon as what failed was cleared away.
pub async fn stored(site: &Site, documents: usize) {
    eventually(async || {
        let rows = count(&site.app, "SELECT COUNT(*) AS n FROM documents").await;
        let loose = count(&site.app, "SELECT COUNT(*) AS n FROM loose_blobs").await;
        let there = files(&site.folder.join("blobs"));
        (rows, loose, there) == (i64::try_from(documents).unwrap(), 0, documents)
    })
    .await;
}

// proves VER-3, VER-7
#[tokio::test]
async fn document_comes_whole_with_a_receipt_and_goes_out_as_an_attachment_only() {
    both(async |site| whole_way(&site).await).await;
}

/// Uploads, attaches and downloads; the same whatever keeps the bytes.
async fn whole_way(site: &Site) {
    let tenant = site.tenant("contoso").await;
    let account = site.account(&tenant, "Contoso").await;
    let manager = &tenant.admin.caller;
    let reviewer = staff(site, "rita", OperatorRole::OperatorReviewer)
        .await
        .caller;
    for (bytes, kind, chunk) in [
        (pdf(), "application/pdf", 7),
        (jpeg(), "image/jpeg", MIB),
        (png(10 * MIB), "image/png", MIB - 1),
    ] {
        let mut begin = first(&account, "C:\\scans\\pass\u{202e}gnp.é\"");
        begin.media_type = kind.to_owned();
        let receipt = upload(manager, begin, &bytes, chunk).await.unwrap();
        assert!(receipt.name.starts_with(&format!("{account}/documents/")));
        assert_eq!(receipt.display_name, "passgnp.é\"");
        assert_eq!(receipt.media_type, kind);
        assert_eq!(receipt.size_bytes, bytes.len() as i64);
        let whole = digest::digest(&digest::SHA256, &bytes);
        assert_eq!(receipt.sha256, hex::encode(whole));
        assert_eq!(receipt.uploaded_by, tenant.admin.name);
        assert!(receipt.create_time.is_some() && receipt.attach_time.is_none());
        let told = events(site, "account.v1.DocumentUploaded", &receipt.name);
        assert_eq!(told.await, 1);
        // Nobody reads what is evidence for nothing; its account's people don't download at all.
        denied(download(&reviewer, &receipt.name).await);
        attach(site, &account, &[&receipt.name]).await.unwrap();
        denied(download(manager, &receipt.name).await);
        denied(download(&site.operator().await, &receipt.name).await);
        let (head, came) = download(&reviewer, &receipt.name).await.unwrap();
        assert!(came == bytes, "the bytes are those that came");
        let shown = head.document.unwrap();
        assert!(shown.attach_time.is_some());
        assert_eq!(shown.sha256, receipt.sha256);
        assert_eq!(
            head.content_disposition,
            "attachment; filename=\"passgnp.__\"; filename*=UTF-8''passgnp.%C3%A9%22"
        );
        assert_eq!(head.content_type_options, "nosniff");
        let look = "entente.account.v1.VerificationService/DownloadDocument";
        for (who, chain) in [(&site.operator().await, "operator"), (manager, &*account)] {
            let seen = audited(who, chain, "").await.unwrap();
            let is_look = |e: &&AuditEvent| e.action == look && e.resources == [&*receipt.name];
            let looks: Vec<_> = seen.iter().filter(is_look).map(|e| &*e.outcome).collect();
            assert!(looks.contains(&"OK"), "{chain}: {looks:?}");
        }
    }
    let absent = format!("{account}/documents/{}", Uuid::from_u128(1));
    denied(download(&reviewer, &absent).await);
}

// proves VER-3, COM-9, ATK-1, ATK-10
#[tokio::test]
async fn what_is_no_good_document_is_refused_and_leaves_nothing() {
    both(async |site| {
        let tenant = site.tenant("contoso").await;
        let other = site.tenant("fabrikam").await;
        let account = site.account(&tenant, "Contoso").await;
        let foreign = site.account(&other, "Fabrikam").await;
        let caller = &tenant.admin.caller;
        let plain = site.person(&tenant, "paul").await;

        let named = async |sent: Vec<UploadDocumentRequest>, field: &str| {
            let status = refused(
                send(caller, sent).await,
                Code::InvalidArgument,
                "INVALID_FIELDS",
            );
            assert_eq!(fields(&status), [field]);
        };
        let of = |bytes: &[u8]| messages(first(&account, "a.png"), bytes, MIB);
        named(
            of(b"<html><script>alert(1)</script></html> and so on"),
            "content",
        )
        .await;
        named(of(b"%PDF-1.7 that never ends"), "content").await;
        named(of(&[]), "content").await;
        named(of(&png(10 * MIB + 1)), "content").await;
        let mut too_much = of(&png(MIB));
        too_much.push(part(&vec![7; MIB + 1]));
        named(too_much, "content").await;
        let mut begins_with_bytes = of(&pdf());
        begins_with_bytes[0].content = pdf();
        named(begins_with_bytes, "content").await;
        let mut says_more = of(&pdf());
        says_more.push(first(&foreign, "b.png"));
        named(says_more, "content").await;
        let mut says_all_again = of(&pdf());
        says_all_again[1].display_name = "b.png".to_owned();
        named(says_all_again, "content").await;
        let mut said_wrong = of(&pdf());
        said_wrong[0].media_type = "image/png".to_owned();
        named(said_wrong, "media_type").await;
        named(messages(first(&account, ""), &pdf(), MIB), "display_name").await;
        let member = tenant.admin.member_of(&account);
        named(messages(first(&member, "a"), &pdf(), MIB), "parent").await;

        refused(
            send(caller, Vec::new()).await,
            Code::InvalidArgument,
            "MALFORMED_MESSAGE",
        );
        // Bytes first: nobody is asked about anything then.
        named(vec![part(&pdf())], "parent").await;
        for parent in [&foreign, &other.admin.name, &tenant.name, &plain.name] {
            denied(upload(caller, first(parent, "a"), pdf(), MIB).await);
        }
        denied(upload(&plain.caller, first(&account, "a"), pdf(), MIB).await);
        let nobody = upload(&site.nobody(), first(&account, "a"), pdf(), MIB).await;
        refused(nobody, Code::Unauthenticated, "CREDENTIALS_MISSING");
        let closed = "UPDATE accounts SET state = 6 WHERE id = $1";
        change(&site, closed, [Value::from(id(&foreign))]).await;
        let late = upload(&other.admin.caller, first(&foreign, "a"), pdf(), MIB).await;
        refused(late, Code::FailedPrecondition, "WRONG_STATE");

        let mut only_asked = first(&account, "a.pdf");
        only_asked.validate_only = true;
        let asked = upload(caller, only_asked, &pdf(), 5).await.unwrap();
        assert_eq!(asked.media_type, "application/pdf");
        stored(&site, 0).await;
    })
    .await;
}

// proves COM-4
#[tokio::test]
async fn upload_repeated_with_its_id_gets_the_first_answer_and_its_bytes_are_dropped() {
    both(async |site| {
        let tenant = site.tenant("contoso").await;
        let account = site.account(&tenant, "Contoso").await;
        let caller = &tenant.admin.caller;
        let mut begin = first(&account, "a.png");
        begin.request_id = request_id();
        let twice = [1, 2].map(|_| upload(caller, begin.clone(), png(2 * MIB), MIB));
        let [one, two] = twice;
        let (one, two) = tokio::join!(one, two);
        assert_eq!(one.unwrap(), two.unwrap());
        let third = send(caller, messages(begin.clone(), &png(2 * MIB), 99_999)).await;
        assert!(replayed(&third.unwrap()));
        let other = upload(caller, begin, png(2 * MIB + 1), MIB).await;
        refused(other, Code::InvalidArgument, "REQUEST_ID_REUSED");
        stored(&site, 1).await;
    })
    .await;
}

// proves COM-1, ATK-12
#[tokio::test]
async fn right_that_ends_while_bytes_come_ends_the_upload() {
    both(async |site| {
        let tenant = site.tenant("contoso").await;
        let account = site.account(&tenant, "Contoso").await;
        let helper = site
            .person_with(&tenant, "hal", |request| {
                request.memberships = vec![membership(&account, &[AccountRole::Manager])];
            })
            .await;
        let slow = Slow::begin(&helper.caller, first(&account, "a.png")).await;
        let quick = Slow::begin(&helper.caller, first(&account, "b.png")).await;
        slow.bring(&png(MIB)).await;
        quick.bring(&png(MIB)).await;
        let request = RemoveMembersRequest {
            parent: account.clone(),
            names: vec![helper.member_of(&account)],
            ..RemoveMembersRequest::default()
        };
        let mut members = tenant.admin.caller.members();
        members.remove_members(request).await.unwrap();
        // At the end, and also while nothing comes.
        denied(quick.end().await);
        // Long before nothing is waited for any more, which is after half a minute.
        let within = Duration::from_secs(15);
        denied(
            tokio::time::timeout(within, slow.call)
                .await
                .unwrap()
                .unwrap(),
        );
        stored(&site, 0).await;
    })
    .await;
}

// proves COM-1, ROL-10, VER-6
#[tokio::test]
async fn right_that_ends_while_bytes_go_out_ends_the_download() {
    both(async |site| {
        let tenant = site.tenant("contoso").await;
        let account = site.account(&tenant, "Contoso").await;
        let rita = staff(&site, "rita", OperatorRole::OperatorReviewer).await;
        let bytes = png(10 * MIB);
        let receipt = upload(&tenant.admin.caller, first(&account, "a.png"), &bytes, MIB).await;
        let name = receipt.unwrap().name;
        attach(&site, &account, &[&name]).await.unwrap();
        let request = DownloadDocumentRequest { name: name.clone() };
        let answer = rita.caller.verification().download_document(request).await;
        let mut answer = answer.unwrap().into_inner();
        assert!(answer.message().await.unwrap().unwrap().document.is_some());
        // The part that she reviews by is gone; what is left lets her in at the door, for other evidence.
        let support = format!(
            "UPDATE grants SET roles = {} WHERE scope_kind = 0 AND principal_id = $1",
            1_i64 << OperatorRole::OperatorSupport as i64
        );
        change(&site, &support, [id(&rita.name).into()]).await;
        let mut came = 0;
        let ended = loop {
            match answer.message().await {
                Ok(Some(part)) => came += part.content.len(),
                Ok(None) => panic!("all of it came"),
                Err(status) => break status,
            }
        };
        assert_eq!(ended.code(), Code::PermissionDenied);
        assert!(came < bytes.len(), "{came} bytes came");
        // Whoever is tied to the company sees nothing of it, reviewer or not.
        let rob = staff(&site, "rob", OperatorRole::OperatorReviewer).await;
        let tied = format!(
            "INSERT INTO former_contacts (account_id, email, end_time) SELECT $1, recovery_email, {} FROM users WHERE id = $2",
            i64::MAX
        );
        change(&site, &tied, [id(&account).into(), id(&rob.name).into()]).await;
        refused(
            download(&rob.caller, &name).await,
            Code::PermissionDenied,
            "NO_OTHER_REVIEWER",
        );
    })
    .await;
}

// proves COM-9
#[tokio::test]
async fn caller_that_goes_away_leaves_nothing() {
    both(async |site| {
        let tenant = site.tenant("contoso").await;
        let account = site.account(&tenant, "Contoso").await;
        let slow = Slow::begin(&tenant.admin.caller, first(&account, "a.png")).await;
        slow.bring(&png(MIB)).await;
        eventually(async || files(&site.folder.join("blobs")) == 1).await;
        slow.call.abort();
        stored(&site, 0).await;
    })
    .await;
}

// proves VER-3
#[tokio::test]
async fn documents_of_nobodys_account_are_their_uploaders_and_few() {
    both(async |site| {
        let nora = identity(&site, "nora@example.org").await;
        let other = identity(&site, "olaf@example.org").await;
        for _ in 0..20 {
            let one = upload(&nora.caller, first(&nora.name, "a.pdf"), pdf(), MIB);
            let name = one.await.unwrap().name;
            assert!(name.starts_with("documents/"), "{name}");
        }
        let one_more = upload(&nora.caller, first(&nora.name, "a.pdf"), pdf(), MIB);
        refused(
            one_more.await,
            Code::ResourceExhausted,
            "TOO_MANY_DOCUMENTS",
        );
        denied(upload(&nora.caller, first(&other.name, "a.pdf"), pdf(), MIB).await);
        // Nor do the many people of a tenant have more room than that tenant has.
        let contoso = site.tenant("contoso").await;
        let ann = &contoso.admin;
        let theirs = "INSERT INTO documents (id, uploaded_by_kind, uploaded_by_id, uploaded_by_tenant_id, display_name, size_bytes, media_type, sha256, \
                      blob_key, create_time) VALUES ($1, 1, $1, $2, 'a.pdf', $3, 'application/pdf', $4, 'none', $5)";
        let values: [Value; 5] = [
            Uuid::from_u128(5).into(),
            id(&contoso.name).into(),
            (300_i64 * 1_024 * 1_024).into(),
            vec![0_u8].into(),
            site.app.now().await.unwrap().into(),
        ];
        change(&site, theirs, values).await;
        refused(
            upload(&ann.caller, first(&ann.name, "a.pdf"), pdf(), MIB).await,
            Code::ResourceExhausted,
            "TOO_MANY_DOCUMENTS",
        );
        change(&site, "DELETE FROM documents WHERE blob_key = 'none'", []).await;
        upload(&other.caller, first(&other.name, "a.pdf"), pdf(), MIB)
            .await
            .unwrap();
        // What nothing is made of goes in time, with its bytes.
        stored(&site, 21).await;
        site.advance(30 * 86_400 + 1).await;
        site.settle().await;
        stored(&site, 0).await;
    })
    .await;
}

// proves VER-7, ATK-1
#[tokio::test]
async fn document_is_attached_once_and_by_its_own_account() {
    both(async |site| {
        let tenant = site.tenant("contoso").await;
        let account = site.account(&tenant, "Contoso").await;
        let other = site.account(&tenant, "Fabrikam").await;
        let caller = &tenant.admin.caller;
        let mut names = Vec::new();
        for parent in [&account, &other, &tenant.admin.name] {
            let one = upload(caller, first(parent, "a.pdf"), pdf(), MIB).await;
            names.push(one.unwrap().name);
        }
        let [own, foreign, alone] = [&names[0], &names[1], &names[2]];
        let wrong = async |names: &[&str], named: &[&str]| {
            let error = attach(&site, &account, names).await.unwrap_err();
            let told: Vec<_> = error.fields().iter().map(|(f, _)| f.as_str()).collect();
            assert_eq!(told, named);
        };
        let disguised = format!("{account}/documents/{}", id(foreign));
        let all = [own, foreign, alone, &disguised, own, "nonsense"];
        let bad = [1, 2, 3, 4, 5].map(|i| format!("documents[{i}]"));
        wrong(&all, &bad.each_ref().map(String::as_str)).await;
        attach(&site, &account, &[own]).await.unwrap();
        wrong(&[own], &["documents[0]"]).await;
        // What is evidence stays.
        site.advance(30 * 86_400 + 1).await;
        site.settle().await;
        stored(&site, 1).await;
    })
    .await;
}
