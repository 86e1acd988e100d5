"""Sentences that we wrote, in many scripts, and some that are hard to show or to split."""

SENTENCES = {
    "en": "The ferry leaves at seven, rain or shine.",
    "es": "El niño compró tres libros en la plaza.",
    "el": "Η γάτα κοιμάται πάνω στο ζεστό πεζούλι.",
    "hu": "A tűzhely mellett mindig jut egy szék a vendégnek.",
    "tr": "Yağmur dindi, çocuklar bahçeye koştu.",
    "ar": "خرج الأولاد إلى الحديقة بعد المطر.",
    "he": "הילדים יצאו לגינה אחרי הגשם.",
    "bn": "ছেলেটি নদীর ধারে বসে গান গায়।",
    "hi": "बच्चे बारिश के बाद बगीचे में दौड़े।",
    "th": "เด็กๆ วิ่งเล่นในสวนหลังฝนหยุด",
    "zh": "雨停了，孩子们跑进花园。",
    "emoji": "a 👨‍👩‍👧‍👦 family, a flag 🇬🇷, a thumb 👍🏽",
    "mixed": "She said שלום and then مرحبا!\n\tTwice.",
    "odd": "<script>alert(1)</script> ${boom()} `x` \\u \x00 \u200b ﷽ Ġ ▁ <0xE0>",
}
