//! Which little words hold the sentences of a language together?
//!
//! Words that English has too ("in", "is", "die", "do", "for", "per") and single plain letters, which formulas have, are left out of the other
//! languages' lists.

pub const ENGLISH: &[&str] = &[
    "the", "of", "and", "to", "in", "is", "that", "for", "it", "as", "with", "be", "on", "are", "this", "by", "or", "an", "you", "your",
    "from", "not", "at", "will", "can", "if", "we", "they", "have", "has", "had", "which", "when", "was", "were", "their", "its", "all",
    "more", "but", "into", "other", "any", "about", "should", "may", "must", "also", "than", "these", "those", "there", "what", "how", "i",
    "my", "he", "she", "his", "her", "do", "does", "so", "who", "would", "could", "them", "some", "like", "each", "while", "make", "use",
    "then", "out", "up",
];

pub const FOREIGN: &[(&str, &[&str])] = &[
    (
        "es",
        &[
            "el", "la", "los", "las", "de", "del", "que", "en", "un", "una", "es", "con", "por", "para", "su", "sus", "se", "lo", "como",
            "más", "pero", "muy", "también", "este", "esta", "cuando", "al", "son", "tus", "tu", "ser", "puede", "pueden", "después",
            "nunca",
        ],
    ),
    (
        "pt",
        &[
            "os", "da", "dos", "das", "de", "que", "em", "um", "uma", "é", "com", "por", "para", "seu", "sua", "se", "não", "mais", "mas",
            "muito", "também", "ao", "na", "nos", "são", "como", "quando", "ele", "ela", "seus", "suas", "pela", "pelo", "você",
        ],
    ),
    (
        "fr",
        &[
            "le", "la", "les", "de", "des", "du", "et", "est", "un", "une", "que", "qui", "dans", "pour", "pas", "sur", "avec", "au",
            "aux", "ce", "cette", "il", "elle", "vous", "nous", "sont", "ne", "par", "plus", "mais", "ou", "où", "votre", "vos", "leur",
            "être", "se", "en", "qu",
        ],
    ),
    (
        "it",
        &[
            "il", "lo", "la", "gli", "di", "del", "della", "dei", "delle", "che", "è", "un", "una", "con", "non", "sono", "più", "anche",
            "ma", "dal", "dalla", "dalle", "nel", "nella", "alla", "al", "ai", "si", "viene", "questo", "questa", "quando", "dell", "se",
            "loro", "suo", "una", "ha", "da",
        ],
    ),
    (
        "ro",
        &[
            "și", "de", "la", "în", "cu", "pe", "este", "nu", "un", "să", "care", "sunt", "pentru", "din", "mai", "că", "se", "ale", "lui",
            "sau",
        ],
    ),
    ("ca", &["el", "la", "els", "les", "de", "del", "dels", "que", "amb", "és", "una", "un", "són", "més", "com", "aquest", "aquesta"]),
    (
        "de",
        &[
            "der", "das", "und", "den", "dem", "des", "ist", "nicht", "mit", "auf", "für", "von", "zu", "ein", "eine", "einen", "einem",
            "einer", "sich", "auch", "es", "sie", "wir", "ich", "werden", "wird", "sind", "bei", "nach", "aus", "oder", "wenn", "dass",
            "aber", "im", "zum", "zur", "vom", "kann", "durch", "über", "ihr", "ihre", "sein", "haben", "dafür", "weil", "wie", "man",
            "nur",
        ],
    ),
    (
        "nl",
        &[
            "de", "het", "een", "en", "van", "dat", "niet", "met", "op", "voor", "zijn", "te", "om", "aan", "ook", "als", "er", "maar",
            "bij", "naar", "wordt", "worden", "je", "uw", "deze", "dit", "kan", "tot", "uit", "wat", "heeft",
        ],
    ),
    (
        "sv",
        &[
            "och", "att", "det", "som", "en", "ett", "är", "av", "för", "med", "inte", "på", "till", "den", "du", "om", "kan", "har",
            "eller", "från", "ska", "sig", "din", "dig", "de", "vi", "när", "så", "vara",
        ],
    ),
    (
        "da",
        &[
            "og", "det", "som", "en", "et", "er", "af", "med", "ikke", "på", "til", "den", "du", "om", "kan", "har", "eller", "fra",
            "skal", "sig", "din", "dig", "de", "vi", "når", "så", "være", "av", "å",
        ],
    ),
    (
        "tr",
        &[
            "ve",
            "bir",
            "bu",
            "için",
            "ile",
            "çok",
            "da",
            "de",
            "olarak",
            "daha",
            "en",
            "gibi",
            "olan",
            "her",
            "ne",
            "değil",
            "var",
            "sonra",
            "veya",
            "kadar",
            "ama",
            "önemlidir",
            "zaman",
        ],
    ),
    (
        "pl",
        &[
            "na",
            "się",
            "nie",
            "jest",
            "że",
            "jak",
            "co",
            "po",
            "od",
            "za",
            "przez",
            "dla",
            "są",
            "lub",
            "ale",
            "tak",
            "być",
            "jego",
            "oraz",
            "który",
            "która",
            "które",
            "żeby",
            "ponieważ",
            "ty",
            "tym",
        ],
    ),
    ("cs", &["se", "na", "je", "že", "pro", "jako", "ale", "jsou", "nebo", "který", "která", "které", "při", "aby", "není", "si"]),
    (
        "id",
        &[
            "yang", "dan", "di", "untuk", "dengan", "ini", "itu", "dari", "dalam", "tidak", "pada", "adalah", "anda", "akan", "juga",
            "atau", "ke", "dapat", "lebih", "oleh", "karena", "seperti", "kita", "mereka", "selain", "jangan",
        ],
    ),
    (
        "vi",
        &[
            "và", "của", "là", "các", "có", "cho", "được", "trong", "một", "không", "với", "để", "những", "này", "từ", "khi", "người",
            "bạn", "cũng", "nhiều", "về", "đã", "ra", "thể",
        ],
    ),
    ("fi", &["ja", "ei", "että", "se", "kun", "joka", "tai", "mutta", "niin", "kuin", "myös", "ovat", "voi", "hän", "sen", "ole"]),
    (
        "hr",
        &[
            "je", "da", "se", "na", "što", "koji", "koja", "koje", "nije", "ili", "ali", "kao", "su", "od", "iz", "za", "što", "može",
            "kako", "biti", "ako", "vam", "vaš", "ovo", "također",
        ],
    ),
    (
        "sk",
        &[
            "je", "sa", "na", "že", "pre", "ako", "ale", "sú", "alebo", "ktorý", "ktorá", "ktoré", "pri", "aby", "nie", "si", "môže",
            "ktorú", "byť", "tento", "táto",
        ],
    ),
    (
        "tl",
        &[
            "ang", "ng", "mga", "sa", "na", "ay", "at", "ito", "hindi", "para", "ko", "mo", "siya", "kung", "nang", "ako", "kami", "natin",
            "din",
        ],
    ),
    ("hu", &["az", "és", "hogy", "nem", "egy", "ez", "van", "de", "meg", "vagy", "ha", "mint", "el", "csak", "már", "lehet"]),
];
