//! RS256 by ring, for the crate that reads tokens. The two cryptographies that it offers itself are
//! a second library for what rustls has ring for, and seven crates for what ring does already.

use jsonwebtoken::{
    Algorithm, DecodingKey, DecodingKeyKind,
    crypto::{CryptoProvider, JwtVerifier, KeyUtils},
    errors::{Error, ErrorKind, new_error},
    signature::{Error as SignatureError, Verifier},
};
use ring::signature::{RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents};

/// Checks signatures, makes none, and knows no other algorithm.
static PROVIDER: CryptoProvider = CryptoProvider {
    signer_factory: |_, _| Err(unsupported()),
    verifier_factory: |algorithm, key| match (algorithm, key.kind()) {
        (Algorithm::RS256, DecodingKeyKind::RsaModulusExponent { .. }) => {
            Ok(Box::new(Rs256(key.clone())))
        }
        _ => Err(unsupported()),
    },
    key_utils: KeyUtils::new_unimplemented(),
};

struct Rs256(DecodingKey);

/// Makes the crate use ring, for the whole process as it wants it.
pub fn install() {
    // Fails where it has been installed already, which is as well.
    let _ = PROVIDER.install_default();
}

impl Verifier<Vec<u8>> for Rs256 {
    fn verify(&self, message: &[u8], signature: &Vec<u8>) -> Result<(), SignatureError> {
        let DecodingKeyKind::RsaModulusExponent { n, e } = self.0.kind() else {
            return Err(SignatureError::new());
        };
        RsaPublicKeyComponents { n, e }
            .verify(&RSA_PKCS1_2048_8192_SHA256, message, signature)
            .map_err(|_| SignatureError::new())
    }
}

impl JwtVerifier for Rs256 {
    fn algorithm(&self) -> Algorithm {
        Algorithm::RS256
    }
}

fn unsupported() -> Error {
    new_error(ErrorKind::UnsupportedAlgorithm)
}
