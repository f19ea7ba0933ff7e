"""What mail programs write around a quote, in the languages that they speak. To add a language, add a `Language`."""

import re

from attrs import frozen


@frozen(kw_only=True)
class Language:
    """The phrases of one language (or of several that share them), each field a list of them.

    `begins` and `wrote` are the first word and the verb of an introduction (`On 5 January, Ann wrote:`); `sender` and
    `fields` name header fields above a quote; `original` and `forwarded` stand between dashes or alone above one;
    `device` begins the line that a telephone puts below a mail.
    """

    begins: tuple[str, ...] = ()
    wrote: tuple[str, ...] = ()
    sender: tuple[str, ...] = ()
    fields: tuple[str, ...] = ()
    original: tuple[str, ...] = ()
    forwarded: tuple[str, ...] = ()
    device: tuple[str, ...] = ()


LANGUAGES = {
    "English": Language(
        begins=("On",),
        wrote=("wrote", "writes"),
        sender=("From",),
        fields=("Sent", "Date", "To", "Cc", "Subject"),
        original=("Original Message", "Original Appointment", "Original Mail"),
        forwarded=("Forwarded message", "Begin forwarded message"),
        device=(
            "Sent from my",
            "Sent from Outlook",
            "Sent from Mail",
            "Sent from Yahoo",
            "Get Outlook for",
            "Sent via",
        ),
    ),
    "German": Language(
        begins=("Am",),
        wrote=("schrieb", "geschrieben"),
        sender=("Von",),
        fields=("Gesendet", "Datum", "An", "Betreff"),
        original=("Ursprüngliche Nachricht", "Urspruengliche Nachricht", "Original-Nachricht", "Originalnachricht"),
        forwarded=(
            "Weitergeleitete Nachricht",
            "Anfang der weitergeleiteten Nachricht",
            "Anfang der weitergeleiteten E-Mail",
        ),
        device=("Von meinem", "Gesendet von", "Gesendet mit", "Diese Nachricht wurde von mein", "Outlook für"),
    ),
    "French": Language(
        begins=("Le",),
        wrote=("a écrit", "écrit"),
        sender=("De", "Expéditeur"),
        fields=("Envoyé", "Date", "À", "Objet"),
        original=("Message d'origine", "Message original"),
        forwarded=("Message transféré", "Début du message réexpédié", "Début du message transféré"),
        device=("Envoyé de mon", "Envoyé depuis", "Envoyé à partir de", "Télécharger Outlook"),
    ),
    "Spanish": Language(
        begins=("El",),
        wrote=("escribió",),
        sender=("De",),
        fields=("Enviado", "Enviado el", "Fecha", "Para", "Asunto"),
        original=("Mensaje original",),
        forwarded=("Mensaje reenviado", "Inicio del mensaje reenviado"),
        device=("Enviado desde", "Obtener Outlook"),
    ),
    "Italian": Language(
        begins=("Il",),
        wrote=("ha scritto", "scritto"),
        sender=("Da",),
        fields=("Inviato", "Data", "A", "Oggetto"),
        original=("Messaggio originale",),
        forwarded=("Messaggio inoltrato", "Inizio messaggio inoltrato"),
        device=("Inviato da", "Scarica Outlook"),
    ),
    "Portuguese": Language(
        begins=("Em", "A"),
        wrote=("escreveu",),
        sender=("De",),
        fields=("Enviado", "Enviada", "Enviada em", "Data", "Para", "Assunto"),
        original=("Mensagem original",),
        forwarded=("Mensagem encaminhada", "Mensagem reencaminhada", "Início da mensagem reencaminhada"),
        device=("Enviado do", "Enviado via", "Obter o Outlook"),
    ),
    "Dutch": Language(
        begins=("Op",),
        wrote=("schreef", "geschreven"),
        sender=("Van",),
        fields=("Verzonden", "Datum", "Aan", "Onderwerp"),
        original=("Oorspronkelijk bericht",),
        forwarded=("Doorgestuurd bericht", "Begin doorgestuurd bericht"),
        device=("Verzonden vanaf", "Verzonden via", "Outlook voor"),
    ),
    "Polish": Language(
        begins=("W dniu", "Dnia", "Użytkownik"),
        wrote=("pisze", "napisał", "napisała"),
        sender=("Od",),
        fields=("Wysłano", "Data", "Do", "Temat"),
        original=("Wiadomość oryginalna", "Oryginalna wiadomość"),
        forwarded=("Przekazana wiadomość", "Wiadomość przekazana"),
        device=("Wysłane z", "Wysłano z"),
    ),
    "Danish, Norwegian, Swedish": Language(
        begins=("Den", "På", "man", "tir", "ons", "tor", "fre", "lør", "lör", "søn", "sön"),
        wrote=("skrev",),
        sender=("Från", "Fra"),
        fields=("Skickat", "Datum", "Till", "Ämne", "Sendt", "Dato", "Til", "Emne"),
        original=("Originalmeddelande", "Ursprungligt meddelande", "Oprindelig meddelelse", "Opprinnelig melding"),
        forwarded=("Vidarebefordrat meddelande", "Videresendt meddelelse", "Videresendt melding"),
        device=("Skickat från", "Sendt fra"),
    ),
    "Finnish": Language(
        wrote=("kirjoitti",),
        sender=("Lähettäjä",),
        fields=("Lähetetty", "Päivämäärä", "Vastaanottaja", "Aihe"),
        original=("Alkuperäinen viesti",),
        forwarded=("Välitetty viesti",),
        device=("Lähetetty",),
    ),
    "Russian": Language(
        begins=("В", "пн", "вт", "ср", "чт", "пт", "сб", "вс"),
        wrote=("пишет", "писал", "писала", "написал", "написала"),
        sender=("От", "От кого"),
        fields=("Отправлено", "Дата", "Кому", "Тема"),
        original=("Исходное сообщение",),
        forwarded=("Пересылаемое сообщение", "Перенаправленное сообщение"),
        device=("Отправлено с", "Отправлено из"),
    ),
    "Ukrainian": Language(
        wrote=("пише", "написав"),
        sender=("Від",),
        fields=("Надіслано", "Кому", "Тема"),
        original=("Вихідне повідомлення",),
        forwarded=("Переслане повідомлення",),
        device=("Надіслано з",),
    ),
    "Bulgarian": Language(
        begins=("На",),
        wrote=("написа",),
        sender=("От",),
        fields=("Изпратено", "Дата", "До", "Относно"),
        original=("Оригинално съобщение",),
        forwarded=("Препратено съобщение",),
        device=("Изпратено от",),
    ),
    "Czech, Slovak": Language(
        begins=("Dne", "Dňa"),
        wrote=("napsal", "napsala", "napísal", "napísala"),
        sender=("Od",),
        fields=("Odesláno", "Odoslané", "Komu", "Předmět", "Predmet"),
        original=("Původní zpráva", "Pôvodná správa"),
        forwarded=("Přeposlaná zpráva", "Preposlaná správa"),
        device=("Odesláno z", "Odoslané z"),
    ),
    "Croatian, Serbian, Slovenian": Language(
        begins=("Dana", "Dne"),
        wrote=("napisao", "napisala", "napisao/la", "je napisal", "piše"),
        sender=("Šalje", "Od"),
        fields=("Poslano", "Datum", "Za", "Predmet", "Zadeva"),
        original=("Izvorna poruka", "Izvirno sporočilo"),
        forwarded=("Proslijeđena poruka", "Posredovano sporočilo"),
        device=("Poslano s",),
    ),
    "Hungarian": Language(
        wrote=("írta",),
        sender=("Feladó",),
        fields=("Elküldve", "Dátum", "Címzett", "Tárgy"),
        original=("Eredeti üzenet",),
        forwarded=("Továbbított üzenet",),
        device=("Küldve",),
    ),
    "Romanian": Language(
        begins=("Pe", "În"),
        wrote=("a scris",),
        sender=("De la",),
        fields=("Trimis", "Data", "Către", "Subiect"),
        original=("Mesaj original",),
        forwarded=("Mesaj redirecționat",),
        device=("Trimis de pe",),
    ),
    "Greek": Language(
        begins=("Στις",),
        wrote=("έγραψε",),
        sender=("Από",),
        fields=("Στάλθηκε", "Ημερομηνία", "Προς", "Θέμα"),
        original=("Αρχικό μήνυμα",),
        forwarded=("Προωθημένο μήνυμα",),
        device=("Στάλθηκε από",),
    ),
    "Turkish": Language(
        wrote=("yazdı",),
        sender=("Kimden", "Gönderen"),
        fields=("Gönderildi", "Gönderme Tarihi", "Tarih", "Kime", "Konu"),
        original=("Orijinal İleti", "Orijinal Mesaj"),
        forwarded=("İletilen ileti", "Yönlendirilen ileti"),
        device=("iPhone'umdan gönderildi", "iPad'imden gönderildi"),
    ),
    "Vietnamese": Language(
        begins=("Vào",),
        wrote=("đã viết",),
        sender=("Từ",),
        fields=("Ngày", "Đến", "Chủ đề"),
        forwarded=("Thư được chuyển tiếp",),
    ),
    "Indonesian": Language(
        begins=("Pada",),
        wrote=("menulis",),
        sender=("Dari",),
        fields=("Tanggal", "Kepada", "Subjek"),
        original=("Pesan asli",),
        forwarded=("Pesan yang diteruskan",),
    ),
    "Chinese": Language(
        wrote=("写道", "寫道"),
        sender=("发件人", "寄件者", "寄件人"),
        fields=("发送时间", "日期", "收件人", "主题", "主旨", "寄件日期", "收件者"),
        original=("原始邮件", "原始郵件"),
        forwarded=("转发的邮件", "轉寄的郵件"),
        device=("从我的", "發自我的", "发自我的"),
    ),
    "Japanese": Language(
        wrote=("のメール", "書きました"),
        sender=("差出人",),
        fields=("送信日時", "日付", "宛先", "件名"),
        original=("元のメッセージ",),
        forwarded=("転送されたメッセージ",),
        device=("iPhoneから送信", "iPadから送信"),
    ),
    "Korean": Language(
        wrote=("님이 작성", "작성"),
        sender=("보낸 사람",),
        fields=("보낸 날짜", "날짜", "받는 사람", "제목"),
        original=("원본 메시지",),
        forwarded=("전달된 메시지",),
        device=("나의 iPhone에서 보냄", "나의 iPad에서 보냄"),
    ),
    "Hebrew": Language(
        begins=("בתאריך", "ב"),
        wrote=("כתב", "כתבה"),
        sender=("מאת",),
        fields=("נשלח", "אל", "נושא", "תאריך"),
        original=("הודעה מקורית",),
        forwarded=("הודעה שהועברה",),
        device=("נשלח מה",),
    ),
    "Arabic": Language(
        begins=("في",),
        wrote=("كتب",),
        sender=("من",),
        fields=("تاريخ", "إلى", "الموضوع"),
        original=("الرسالة الأصلية",),
        forwarded=("رسالة معاد توجيهها",),
        device=("أرسلت من",),
    ),
}

FORWARD_SUBJECTS = "fw|fwd|wg|tr|rv|i|enc|doorst|pd|vb|vs|vl|ilt|tov|転送|转发|轉寄|전달"
"""What the subject of a forwarded mail begins with."""

REPLY_SUBJECTS = (
    "re|aw|antw|antwort|sv|vá|res|rép|odp|ynt|bls|atb|σχετ|απ|отв|ответ|відп|回复|回覆|答复|返信|회신|השב|رد"
)
"""What the subject of an answer begins with."""


def any_of(kind: str) -> str:
    """Give a regular expression for the phrases of one field in all languages, the longest first."""
    known = {phrase for language in LANGUAGES.values() for phrase in getattr(language, kind)}
    return "(?:" + "|".join(map(re.escape, sorted(known, key=lambda one: (-len(one), one)))) + ")"
