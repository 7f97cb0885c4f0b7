"""Commands of who signs bundles: a key, a signature."""

from mobilekd.options import (
    BundleArgument,
    JsonOption,
    KeyOption,
    NewKeyOption,
    NoPassphraseOption,
    OpenssfKeyOption,
    OpenssfOption,
    PassphraseOption,
    SignatureOutOption,
)


def keygen(
    *,
    out: NewKeyOption,
    passphrase_file: PassphraseOption = None,
    no_passphrase: NoPassphraseOption = False,
    as_json: JsonOption = False,
) -> None:
    """Make an Ed25519 key pair that signs bundles: KEY, kept by you, and KEY.pub, given away."""
    from mobilekd.cache import Cache
    from mobilekd.release.passphrases import new_passphrase
    from mobilekd.release.signing_keys import check_place, write_key_pair
    from mobilekd.show_signing import show_key

    away = (Cache.default_root(),)
    check_place(out, away)  # before anyone is asked for a passphrase
    passphrase = new_passphrase(out, passphrase_file, is_wanted=not no_passphrase)
    show_key(out, write_key_pair(out, passphrase, away_from=away), as_json=as_json)


def sign(
    *,
    bundle: BundleArgument,
    key: KeyOption,
    out: SignatureOutOption = None,
    passphrase_file: PassphraseOption = None,
    openssf: OpenssfOption = None,
    openssf_key: OpenssfKeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Sign a bundle whose every digest holds: BUNDLE.sig.json beside it."""
    from mobilekd.release.openssf import openssf_of
    from mobilekd.release.passphrases import passphrase_of
    from mobilekd.release.sign import sign_bundle
    from mobilekd.release.signing_keys import read_private_key
    from mobilekd.show_signing import show_signature

    second = openssf_of(openssf, openssf_key)
    signer = read_private_key(key, passphrase_of(key, passphrase_file))
    show_signature(sign_bundle(bundle, signer, out, second), as_json=as_json)
