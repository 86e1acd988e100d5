"""Short texts and prompts of our own, one per language, to trace and to continue after a training.

Written for this project; no corpus contains them.
"""

TEXTS = {
    "ar": "فتحت النافذة صباحًا فدخل صوت البحر إلى الغرفة. كم أحبّ هذه المدينة!",
    "bn": "সকালে জানালা খুলতেই সমুদ্রের শব্দ ঘরে ঢুকল। এই শহরটা আমার খুব প্রিয়।",
    "de": "Am Morgen öffnete ich das Fenster und hörte das Meer. Diese Stadt mag ich sehr.",
    "el": "Το πρωί άνοιξα το παράθυρο και άκουσα τη θάλασσα. Πόσο αγαπώ αυτή την πόλη!",
    "en": "In the morning I opened the window and heard the sea. How I love this town!",
    "es": "Por la mañana abrí la ventana y oí el mar. ¡Cuánto me gusta esta ciudad!",
    "fr": "Le matin, j'ai ouvert la fenêtre et j'ai entendu la mer. Que j'aime cette ville !",
    "he": "בבוקר פתחתי את החלון ושמעתי את הים. כמה אני אוהבת את העיר הזאת!",
    "hi": "सुबह खिड़की खोली तो समुद्र की आवाज़ कमरे में आ गई। यह शहर मुझे बहुत प्रिय है।",
    "hu": "Reggel kinyitottam az ablakot, és hallottam a tengert. Mennyire szeretem ezt a várost!",
    "ja": "朝、窓を開けると海の音が聞こえた。この町が本当に好きだ。",
    "ko": "아침에 창문을 여니 바다 소리가 들렸다. 나는 이 도시를 정말 좋아한다.",
    "ne": "बिहान झ्याल खोल्दा समुद्रको आवाज कोठाभित्र आयो। मलाई यो सहर धेरै मन पर्छ।",
    "ru": "Утром я открыла окно и услышала море. Как я люблю этот город!",
    "th": "ตอนเช้าฉันเปิดหน้าต่างแล้วได้ยินเสียงทะเล ฉันรักเมืองนี้มาก",
    "tr": "Sabah pencereyi açtım ve denizin sesini duydum. Bu şehri ne kadar seviyorum!",
    "zh": "早上我打开窗户，听见了大海的声音。我多么喜欢这座城市！",
}

PROBE = " ".join(TEXTS[language] for language in ("en", "es", "el", "zh"))
"""A short text in four scripts, by which two models are compared."""

PROMPTS = {
    "ar": "كان يا ما كان، في قرية صغيرة",
    "bn": "এক গ্রামে এক বুড়ি থাকত",
    "de": "Es war einmal in einem kleinen Dorf",
    "el": "Μια φορά κι έναν καιρό, σε ένα μικρό χωριό",
    "en": "Once upon a time, in a small village",
    "es": "Había una vez, en un pueblo pequeño",
    "fr": "Il était une fois, dans un petit village",
    "he": "היה היה פעם, בכפר קטן",
    "hi": "एक समय की बात है, एक छोटे से गाँव में",
    "hu": "Egyszer volt, hol nem volt, egy kis faluban",
    "ja": "昔々、小さな村に",
    "ko": "옛날 옛적에 작은 마을에",
    "ne": "एकादेशमा, एउटा सानो गाउँमा",
    "ru": "Жили-были в маленькой деревне",
    "th": "กาลครั้งหนึ่งในหมู่บ้านเล็กๆ",
    "tr": "Bir varmış bir yokmuş, küçük bir köyde",
    "zh": "从前，在一个小村庄里",
}
