//! Keys, certificates and messages made by the `openssl` command, in a directory that is deleted in the end.
//!
//! What is tested is thus not compared with a second reading of the same standard by the same people.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use tempfile::TempDir;

/// Gives every file and every certificate its own number.
static COUNT: AtomicU32 = AtomicU32::new(1);

fn number() -> u32 {
    COUNT.fetch_add(1, Ordering::Relaxed)
}

/// The extensions of an authority.
pub const AUTHORITY: &str = "basicConstraints=critical,CA:TRUE\nkeyUsage=keyCertSign,cRLSign\n\
                             subjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid";
/// The extensions of a key as Linux's build makes them (`certs/Makefile`).
pub const SIGNER: &str = "basicConstraints=critical,CA:FALSE\nkeyUsage=digitalSignature\n\
                          subjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid";

/// Where the command works.
pub struct Openssl {
    directory: TempDir,
}

/// A private key.
#[derive(Clone)]
pub struct Key(PathBuf);

/// A key with a certificate.
#[derive(Clone)]
pub struct Identity {
    pub key: Key,
    pub certificate: PathBuf,
    pub der: Vec<u8>,
}

impl Openssl {
    pub fn new() -> Self {
        Self { directory: TempDir::new().expect("a temporary directory") }
    }

    fn path(&self, extension: &str) -> PathBuf {
        self.directory.path().join(format!("{}.{extension}", number()))
    }

    /// Writes `bytes` to a file of their own.
    pub fn file(&self, bytes: &[u8]) -> PathBuf {
        let path = self.path("bin");
        fs::write(&path, bytes).expect("a file");
        path
    }

    fn run(command: &mut Command) {
        let output = command.output().expect("starting openssl");
        assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    }

    /// Makes a key: `rsa:BITS`, `curve:NAME`, or the name of another algorithm.
    pub fn key(&self, kind: &str) -> Key {
        let path = self.path("key");
        let mut command = Command::new("openssl");
        command.args(["genpkey", "-out"]).arg(&path).arg("-algorithm");
        match kind.split_once(':') {
            Some(("rsa", bits)) => command.args(["RSA", "-pkeyopt"]).arg(format!("rsa_keygen_bits:{bits}")),
            Some(("curve", name)) => command.args(["EC", "-pkeyopt"]).arg(format!("ec_paramgen_curve:{name}")),
            _ => command.arg(kind),
        };
        Self::run(&mut command);
        Key(path)
    }

    /// Makes a certificate for `key` with a number of its own. Without `issuer` it signs itself.
    pub fn certificate(&self, key: &Key, name: &str, extensions: &str, issuer: Option<&Identity>) -> Identity {
        let serial = (0x0100_0000 + number()).to_string();
        self.certificate_with(key, name, extensions, issuer, &serial, &["-sha256"])
    }

    /// As [`Self::certificate`], with a serial number and further arguments.
    pub fn certificate_with(
        &self,
        key: &Key,
        name: &str,
        extensions: &str,
        issuer: Option<&Identity>,
        serial: &str,
        arguments: &[&str],
    ) -> Identity {
        let (config, certificate, der) = (self.path("cnf"), self.path("pem"), self.path("der"));
        let text = format!("[req]\ndistinguished_name=dn\nprompt=no\n[dn]\nCN={name}\n[ext]\n{extensions}\n");
        fs::write(&config, text).expect("a file");
        let mut command = Command::new("openssl");
        command.args(["req", "-x509", "-new", "-days", "30", "-set_serial", serial, "-key"]).arg(&key.0);
        command.arg("-config").arg(&config).args(["-extensions", "ext"]).args(arguments);
        if let Some(issuer) = issuer {
            command.arg("-CA").arg(&issuer.certificate).arg("-CAkey").arg(&issuer.key.0);
        }
        Self::run(command.arg("-out").arg(&certificate));
        let mut convert = Command::new("openssl");
        convert.args(["x509", "-outform", "DER", "-in"]).arg(&certificate).arg("-out").arg(&der);
        Self::run(&mut convert);
        Identity { key: key.clone(), certificate, der: fs::read(der).expect("the certificate") }
    }

    /// The certificate `der` for `key`, as if the command had made it.
    pub fn adopt(&self, key: &Key, der: Vec<u8>) -> Identity {
        let certificate = self.path("pem");
        let mut convert = Command::new("openssl");
        convert.args(["x509", "-inform", "DER", "-in"]).arg(self.file(&der)).arg("-out").arg(&certificate);
        Self::run(&mut convert);
        Identity { key: key.clone(), certificate, der }
    }

    /// A detached message over `content`, by all `signers`, with the certificates in `carried`.
    pub fn sign(&self, content: &[u8], signers: &[&Identity], carried: &[&Identity], arguments: &[&str]) -> Vec<u8> {
        let out = self.path("cms");
        let mut command = Command::new("openssl");
        command.args(["cms", "-sign", "-binary", "-nosmimecap", "-outform", "DER", "-in"]).arg(self.file(content));
        for signer in signers {
            command.arg("-signer").arg(&signer.certificate).arg("-inkey").arg(&signer.key.0);
        }
        if carried.is_empty() {
            command.arg("-nocerts");
        } else {
            // Whatever is carried is in the file, so that the signers' own do not come by themselves.
            let text: String = carried.iter().map(|one| fs::read_to_string(&one.certificate).unwrap()).collect();
            command.arg("-nocerts").arg("-certfile").arg(self.file(text.as_bytes()));
        }
        Self::run(command.args(arguments).arg("-out").arg(&out));
        fs::read(out).expect("the message")
    }

    /// The signature of `bytes` with SHA-256, without any message around it.
    pub fn raw_signature(&self, key: &Key, bytes: &[u8]) -> Vec<u8> {
        let out = self.path("sig");
        let mut command = Command::new("openssl");
        command.args(["dgst", "-sha256", "-sign"]).arg(&key.0).arg("-out").arg(&out).arg(self.file(bytes));
        Self::run(&mut command);
        fs::read(out).expect("the signature")
    }
}
