//! Signs modules as Linux's build does (`scripts/sign-file`), with the `openssl` command: keys that last as long as the
//! test or the run that made them.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

/// The extensions of an authority.
const AUTHORITY: &str = "basicConstraints=critical,CA:TRUE\nkeyUsage=keyCertSign,cRLSign,digitalSignature\n\
                         subjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid";
/// The extensions of a module's key as Linux's build makes them (`certs/Makefile`).
const MODULES: &str = "basicConstraints=critical,CA:FALSE\nkeyUsage=digitalSignature\n\
                       subjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid";
/// `MODULE_SIG_STRING` (Linux `include/linux/module_signature.h`).
const MARKER: &[u8] = b"~Module signature appended~\n";
/// `PKEY_ID_PKCS7` (Linux `enum pkey_id_type`).
const PKCS7: u8 = 2;

/// [`MODULES`], and that it is for signing modules and nothing else.
fn modules_only() -> String {
    format!("{MODULES}\nextendedKeyUsage=codeSigning,1.3.6.1.4.1.2312.16.1.2")
}

/// Every certificate has a serial number of its own.
static SERIAL: AtomicU32 = AtomicU32::new(0x0200_0000);

/// How `openssl genpkey` makes the keys.
const P256: [&str; 4] = ["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"];
const RSA: [&str; 4] = ["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:4096"];

/// A key with a certificate.
pub struct Signer {
    directory: TempDir,
    der: Vec<u8>,
}

impl Signer {
    /// As [`Self::authority`], with a key of RSA-4096, as distributions have.
    ///
    /// # Errors
    /// When `openssl` is missing or fails.
    pub fn rsa_authority(name: &str) -> Result<Self> {
        Self::new(name, RSA, AUTHORITY, None)
    }

    /// A signer of modules and certificates, with a self-signed certificate and a P-256 key.
    ///
    /// # Errors
    /// When `openssl` is missing or fails.
    pub fn authority(name: &str) -> Result<Self> {
        Self::new(name, P256, AUTHORITY, None)
    }

    /// A signer of modules, whose certificate `issuer` has signed.
    ///
    /// # Errors
    /// When `openssl` is missing or fails.
    pub fn issued_by(name: &str, issuer: &Self) -> Result<Self> {
        Self::new(name, P256, MODULES, Some(issuer))
    }

    /// A signer of modules and nothing else, whose certificate `issuer` has signed and which says so, as
    /// distributions do (`1.3.6.1.4.1.2312.16.1.2`).
    ///
    /// # Errors
    /// When `openssl` is missing or fails.
    pub fn of_modules_only(name: &str, issuer: &Self) -> Result<Self> {
        Self::new(name, P256, &modules_only(), Some(issuer))
    }

    /// As [`Self::of_modules_only`], with a key of RSA-4096: a kernel may have ECDSA as a module only.
    ///
    /// # Errors
    /// When `openssl` is missing or fails.
    pub fn rsa_of_modules_only(name: &str, issuer: &Self) -> Result<Self> {
        Self::new(name, RSA, &modules_only(), Some(issuer))
    }

    fn new(name: &str, key: [&str; 4], extensions: &str, issuer: Option<&Self>) -> Result<Self> {
        let signer = Self { directory: TempDir::new()?, der: Vec::new() };
        let text = format!("[req]\ndistinguished_name=dn\nprompt=no\n[dn]\nCN={name}\n[ext]\n{extensions}\n");
        fs::write(signer.file("cnf"), text)?;
        let mut command = Command::new("openssl");
        run(command.arg("genpkey").args(key).arg("-out").arg(signer.file("key")))?;
        let serial = SERIAL.fetch_add(1, Ordering::Relaxed).to_string();
        let mut command = Command::new("openssl");
        command.args(["req", "-x509", "-new", "-sha256", "-days", "30", "-set_serial", &serial, "-extensions", "ext"]);
        command.arg("-config").arg(signer.file("cnf")).arg("-key").arg(signer.file("key"));
        if let Some(issuer) = issuer {
            command.arg("-CA").arg(issuer.file("pem")).arg("-CAkey").arg(issuer.file("key"));
        }
        run(command.arg("-out").arg(signer.file("pem")))?;
        let mut command = Command::new("openssl");
        command.args(["x509", "-outform", "DER", "-in"]).arg(signer.file("pem"));
        run(command.arg("-out").arg(signer.file("der")))?;
        let der = fs::read(signer.file("der"))?;
        Ok(Self { der, ..signer })
    }

    fn file(&self, extension: &str) -> PathBuf {
        self.directory.path().join("it").with_extension(extension)
    }

    /// The certificate, in DER.
    #[must_use]
    pub fn certificate(&self) -> &[u8] {
        &self.der
    }

    /// A signature of `content` with SHA-256, and nothing else.
    ///
    /// # Errors
    /// When `openssl` fails.
    pub fn sign_raw(&self, content: &[u8]) -> Result<Vec<u8>> {
        let directory = TempDir::new()?;
        let [from, to] = ["content", "signature"].map(|name| directory.path().join(name));
        fs::write(&from, content)?;
        let mut command = Command::new("openssl");
        command.args(["dgst", "-sha256", "-sign"]).arg(self.file("key")).arg("-out").arg(&to);
        run(command.arg(&from))?;
        Ok(fs::read(to)?)
    }

    /// `content` with a signature behind it, as Linux takes modules: with SHA-512.
    ///
    /// # Errors
    /// When `openssl` fails.
    pub fn sign(&self, content: &[u8]) -> Result<Vec<u8>> {
        self.sign_with(content, "sha512")
    }

    /// As [`Self::sign`], with a digest that is named as `openssl` does.
    ///
    /// # Errors
    /// When `openssl` fails.
    pub fn sign_with(&self, content: &[u8], digest: &str) -> Result<Vec<u8>> {
        // A directory for each, as several threads may sign.
        let directory = TempDir::new()?;
        let [from, to] = ["content", "message"].map(|name| directory.path().join(name));
        fs::write(&from, content)?;
        let mut command = Command::new("openssl");
        command.args(["cms", "-sign", "-binary", "-noattr", "-nocerts", "-md", digest, "-outform", "DER"]);
        command.arg("-signer").arg(self.file("pem")).arg("-inkey").arg(self.file("key"));
        run(command.arg("-in").arg(&from).arg("-out").arg(&to))?;
        Ok(appended(content, &fs::read(to)?))
    }
}

/// `content` with `message` behind it, as `scripts/sign-file` appends one.
#[must_use]
pub fn appended(content: &[u8], message: &[u8]) -> Vec<u8> {
    let length = u32::try_from(message.len()).unwrap_or(u32::MAX).to_be_bytes();
    [content, message, &[0, 0, PKCS7, 0, 0, 0, 0, 0], &length, MARKER].concat()
}

fn run(command: &mut Command) -> Result<()> {
    let output = command.output().context("starting openssl")?;
    ensure!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}
