//! An object store that answers and does not let the server work: other credentials, no such bucket. Waiting mends nothing;
//! somebody has to.

/// An object store refuses the server.
#[derive(Debug, thiserror::Error)]
#[error("the object store {place} refuses the server: {code}")]
pub struct Refusal {
    place: String,
    code: String,
}

/// What S3 says of a request that cannot be right at another time either:
/// <https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html>.
const CODES: [&str; 6] = [
    "NoSuchBucket",
    "InvalidBucketName",
    "InvalidAccessKeyId",
    "SignatureDoesNotMatch",
    "AuthorizationHeaderMalformed",
    "PermanentRedirect",
];

impl Refusal {
    /// Finds it in what the library says, of the store at `place`.
    pub(super) fn find(error: &object_store::Error, place: &str) -> Option<Self> {
        use object_store::Error::{PermissionDenied, Unauthenticated};
        let code = code(error);
        let is_refused = matches!(error, PermissionDenied { .. } | Unauthenticated { .. })
            || code.as_ref().is_some_and(|code| CODES.contains(&code.as_str()));
        is_refused.then(|| Self { place: place.to_owned(), code: code.unwrap_or_else(|| "AccessDenied".to_owned()) })
    }

    /// What the operator can do about it.
    #[must_use]
    pub fn hint(&self) -> &'static str {
        if self.code.contains("Bucket") {
            "make the bucket, or name another with --blob-store"
        } else {
            "check the access key, its secret and AWS_REGION; on this bucket the key needs s3:ListBucket, s3:GetObject, \
             s3:PutObject, s3:DeleteObject and s3:AbortMultipartUpload"
        }
    }
}

/// The code in S3's answer. The library has the answer only as a text, within its error's own.
pub(super) fn code(error: &object_store::Error) -> Option<String> {
    let text = format!("{error:?}");
    let (_, rest) = text.split_once("<Code>")?;
    let (code, _) = rest.split_once('<')?;
    // Goes to callers and into logs.
    code.chars().all(|c| c.is_ascii_alphanumeric()).then(|| code.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(code: &str) -> object_store::Error {
        let source =
            format!("400: <?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>No.</Message></Error>").into();
        object_store::Error::Generic { store: "S3", source }
    }

    #[test]
    fn a_store_that_cannot_work_is_told_from_one_that_does_not_work_now() {
        for code in CODES {
            let refusal = Refusal::find(&said(code), "s3://b/p").unwrap();
            assert_eq!(refusal.to_string(), format!("the object store s3://b/p refuses the server: {code}"));
        }
        for code in ["SlowDown", "InternalError", "NoSuchKey", "NoSuchUpload"] {
            assert!(Refusal::find(&said(code), "s3://b/p").is_none(), "{code}");
        }
        let source = "no body".into();
        let denied = object_store::Error::PermissionDenied { path: "x".to_owned(), source };
        assert!(Refusal::find(&denied, "s3://b/p").unwrap().to_string().ends_with("AccessDenied"));
    }

    #[test]
    fn what_is_no_code_is_not_repeated() {
        assert_eq!(code(&said("a b\n")), None);
    }
}
