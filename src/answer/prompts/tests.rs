use std::io::Cursor;

use proptest::{collection::vec, prelude::*};

use super::{
    sound::{LONGEST, WANTED},
    *,
};

const SCRIPT: &str = include_str!("../../../scripts/render-prompts");

/// Samples below -40 dBFS are silence.
const SILENT: u16 = 328;

fn language(tag: &str) -> Language {
    Language::try_from(tag.to_owned()).unwrap()
}

fn shipped() -> Prompts {
    Prompts::load(None).unwrap()
}

/// Returns a WAV file of as many samples as there are.
fn wav(spec: hound::WavSpec, samples: u32) -> Vec<u8> {
    let mut file = Cursor::new(Vec::new());
    let mut writer = hound::WavWriter::new(&mut file, spec).unwrap();
    for _ in 0..samples * u32::from(spec.channels) {
        match spec.sample_format {
            hound::SampleFormat::Int => writer.write_sample(7_i16).unwrap(),
            hound::SampleFormat::Float => writer.write_sample(0.5_f32).unwrap(),
        }
    }
    writer.finalize().unwrap();
    file.into_inner()
}

/// Loads a folder with `files` in it, as they are below `prompts`.
fn load(files: &[(&str, &[u8])]) -> Result<Prompts, String> {
    let folder = tempfile::tempdir().unwrap();
    for (name, bytes) in files {
        let file = folder.path().join("prompts").join(name);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, bytes).unwrap();
    }
    let here = format!("{}/", folder.path().display());
    Prompts::load(Some(folder.path())).map_err(|error| error.to_string().replace(&here, ""))
}

#[test]
fn every_shipped_prompt_is_loud_and_starts_and_ends_with_its_words() {
    for (tag, prompt, wav) in EMBEDDED {
        let what = format!("{tag}/{}", prompt.name());
        let prompts = shipped();
        assert_eq!(prompts.wav(prompt, &language(tag)), wav, "{what}");
        let samples = prompts.samples(prompt, &language(tag));
        let seconds = samples.len() / Prompts::RATE as usize;
        assert!((2..15).contains(&seconds), "{what}: {seconds} s");
        let peak = samples.iter().map(|sample| sample.unsigned_abs()).max();
        // -3 dBFS, as near as sox comes to it.
        assert!(
            peak.is_some_and(|peak| peak.abs_diff(23_198) < 300),
            "{what}: {peak:?}"
        );
        let speaks = |sample: &i16| sample.unsigned_abs() > SILENT;
        let first = samples.iter().position(speaks).unwrap();
        let last = samples.iter().rev().position(speaks).unwrap();
        let longest = Prompts::RATE as usize / 5;
        assert!(first < longest && last < longest, "{what}: {first}, {last}");
    }
}

#[test]
fn prompts_say_what_the_templates_of_twiml_say() {
    let templates = Path::new(env!("CARGO_MANIFEST_DIR")).join("templates/twiml");
    for folder in fs::read_dir(templates).unwrap() {
        let folder = folder.unwrap().path();
        let tag = folder.file_name().unwrap().to_str().unwrap();
        for prompt in Prompt::ALL {
            let name = prompt.name();
            let file = folder.join(format!("{}.xml", name.replace('_', "-")));
            let twiml = fs::read_to_string(file).unwrap();
            let (_, said) = twiml.split_once("<Say ").unwrap();
            let (_, said) = said.split_once('>').unwrap();
            let (said, _) = said.split_once("</Say>").unwrap();
            let rendered = format!("\nprompt {tag} {name} '{said}'");
            assert!(SCRIPT.contains(&rendered), "{rendered}");
            let shipped = |&(known, other, _): &(&str, Prompt, _)| known == tag && other == prompt;
            assert!(EMBEDDED.iter().any(shipped), "{tag}/{name}");
        }
    }
}

#[test]
fn a_language_falls_back_to_its_other_regions_and_then_to_english() {
    let arabic = wav(WANTED, 160);
    let prompts = load(&[("ar-IL/busy.wav", &arabic)]).unwrap();
    let busy = |tag| prompts.wav(Prompt::Busy, &language(tag));
    assert_eq!(busy("ar-IL"), &arabic);
    assert_eq!(busy("ar-EG"), &arabic);
    assert_eq!(busy("he"), busy("he-IL"));
    assert_eq!(busy("en-GB"), busy("en-US"));
    assert_eq!(busy("ja-JP"), busy("en-US"));
    assert_ne!(busy("he-IL"), busy("en-US"));
    let goodbye = |tag| prompts.samples(Prompt::Goodbye, &language(tag));
    assert_eq!(goodbye("ar-IL"), goodbye("en-US"));
}

#[test]
fn an_operators_prompt_takes_the_place_of_the_embedded_one() {
    let own = wav(WANTED, 160);
    let hidden: (&str, &[u8]) = ("..2026_01_01/busy.wav", b"an older version");
    let prompts = load(&[("he-IL/busy.wav", &own), ("NOTES.txt", b"not used"), hidden]).unwrap();
    let hebrew = language("he-IL");
    assert_eq!(prompts.wav(Prompt::Busy, &hebrew), &own);
    assert_eq!(prompts.samples(Prompt::Busy, &hebrew), [7; 160]);
    let untouched = shipped();
    let goodbye = |prompts: &Prompts| prompts.wav(Prompt::Goodbye, &hebrew).clone();
    assert_eq!(goodbye(&prompts), goodbye(&untouched));
}

#[test]
fn a_folder_without_prompts_changes_nothing() {
    assert!(load(&[]).is_ok());
    let missing = Path::new("/no/such/folder");
    assert!(Prompts::load(Some(missing)).is_ok()); // The templates complain of it.
}

#[test]
fn every_file_that_no_carrier_would_play_is_named_with_what_is_wrong() {
    let stereo = hound::WavSpec {
        channels: 2,
        sample_rate: 44_100,
        ..WANTED
    };
    let float = hound::WavSpec {
        bits_per_sample: 32,
        sample_format: hound::SampleFormat::Float,
        ..WANTED
    };
    let whole = wav(WANTED, 160);
    let mut bulky = whole.clone();
    bulky.resize(usize::try_from(LARGEST).unwrap() + 1, 0);
    let error = load(&[
        ("en-US/apology.wav", &wav(stereo, 160)),
        ("en-US/busy.wav", &wav(float, 160)),
        ("en-US/goodbye.wav", &wav(WANTED, 0)),
        (
            "en-US/not_in_service.wav",
            &wav(WANTED, LONGEST * Prompts::RATE + 1),
        ),
        ("en-US/voicemail.wav", b"ID3 is another format"),
        ("en-US/voicemail_thanks.wav", &whole[..whole.len() - 1]),
        ("en-US/whatsapp.wav", &bulky),
        ("en-US/voicemail-thanks.wav", &whole),
        ("english/busy.wav", &whole),
    ]);
    insta::assert_snapshot!(error.err().unwrap(), @r"
    9 prompts are wrong:
      prompts/en-US/apology.wav: it is 16-bit PCM, stereo, 44100 Hz, and has to be 16-bit PCM, mono, 16000 Hz
      prompts/en-US/busy.wav: it is 32-bit float, mono, 16000 Hz, and has to be 16-bit PCM, mono, 16000 Hz
      prompts/en-US/goodbye.wav: it is empty
      prompts/en-US/not_in_service.wav: it is longer than 60 s
      prompts/en-US/voicemail-thanks.wav: no prompt has this name: they are prompts/<language>/ and one of busy.wav, voicemail.wav, voicemail_thanks.wav, whatsapp.wav, not_in_service.wav, apology.wav, goodbye.wav
      prompts/en-US/voicemail.wav: it is no WAV file that can be read (Ill-formed WAVE file: no RIFF tag found)
      prompts/en-US/voicemail_thanks.wav: it is no WAV file that can be read (Failed to read enough bytes.)
      prompts/en-US/whatsapp.wav: it is larger than 2097152 bytes
      prompts/english/busy.wav: no prompt has this name: they are prompts/<language>/ and one of busy.wav, voicemail.wav, voicemail_thanks.wav, whatsapp.wav, not_in_service.wav, apology.wav, goodbye.wav
    ");
}

#[test]
fn the_longest_prompt_is_a_minute() {
    let minute = wav(WANTED, LONGEST * Prompts::RATE);
    assert!(load(&[("en-US/busy.wav", &minute)]).is_ok());
}

proptest! {
    #[test]
    fn no_file_stops_the_start_without_a_reason(
        damage in vec((0_usize..60, any::<u8>()), 1..6),
        length in 0_usize..=60,
    ) {
        let mut file = wav(WANTED, 8);
        for (at, byte) in damage {
            file[at] = byte;
        }
        file.truncate(length);
        if let Ok(sound) = Sound::read(Bytes::from(file)) {
            prop_assert!((1..=8).contains(&sound.samples.len()));
        }
    }
}
