"""Words for chest, other body parts and views, as radiographers of several countries write them.

Latin words are matched without accents and from the beginning of a word, so that compounds and
endings are covered; short ones, which begin other words too, only as a whole.
"""

import re
import unicodedata
from typing import Final

_SPINE_OF_THE_CHEST: Final = re.compile(
    r"\b(?:thora\w+|torac\w+|dors\w+) (?:spine|vertebra\w*|wirbel\w*|colonna|columna|coluna|rachis)"
    r"|\b(?:spine|colonna|columna|coluna|rachis|vertebra\w*) (?:thora|torac|dors)"
    r"|\bthora[ck]o ?lumb|\bdorso ?lumb|\btoraco ?lomb|\btoraco ?lumb|\bbrustwirbel|\bbws\b"
    r"|胸椎|흉추|грудн\w+ отдел"
)
_CHEST: Final = re.compile(
    r"\b(?:chest|thora|torac|torax|lung|pulmo|poumon|polmon|pulmao|brustkorb|cxr\b|mediastin)"
    r"|胸|肺|흉부|폐|грудн|легк|легоч"
)
_OTHER: Final = re.compile(
    r"\b(?:hips?|huft\w*|hueft\w*|hanche|cadera|quadril|anca|legs?|upper arm|hands?|feet|foot|"
    r"toes?|heel|jaw|head|kub|knees?|knie\w*|fuss\w*|kopf|pied|genou|mano|bein|opg|hws|lws)\b"
    r"|\b(?:extremit|tibia|fibula|femur|femor|rodilla|ginocchio|joelho|ankle|sprunggelenk|cheville|"
    r"tobillo|wrist|handgelenk|poignet|muneca|finger|elbow|ellenbogen|coude|forearm|unterarm|"
    r"humerus|oberarm|shoulder|schulter|epaule|hombro|spalla|ombro|dental|dent[ei]|teeth|tooth|zahn|"
    r"panoram|orthopan|mandib|maxill|kiefer|skull|schadel|schaedel|crane|craneo|cranio|sinus|"
    r"nasal|orbita|spine|spinal|wirbel|lumbar|lenden|lombaire|lombar|cervical|halswirbel|sacr|"
    r"coccy|cspine|tspine|lspine|lsspine|columna|colonna|coluna|rachis|pelvi|becken|bassin|bacino|"
    r"abdom|bauch|breast|mammo|mamma|bladder|urin|urogr|gastro|oesophag|esophag|stomach|bowel|"
    r"colon\b|whole ?body|bone ?age|sternum)"
    r"|腹|骨盤|骨盆|膝|頭|头|頸|颈|腰|手|足|股|歯|牙|椎|乳|복부|골반|무릎|두부|척추|요추|경추|유방|치아"
    r"|позвоноч|таз|колен|череп|брюшн|стоп|кист"
)
_LATERAL: Final = re.compile(
    r"\b(?:lateral\w*|lat|latero\w*|seitlich\w*|seitl|profil|perfil|profilo|oblique|obl|schrag|"
    r"decubitus|lordotic)\b|側面|侧位|측면|боков"
)
_FRONTAL: Final = re.compile(
    r"\b(?:pa|ap|p a|a p|frontal\w*|postero ?anterior|antero ?posterior|face|frente)\b"
    r"|正面|正位|后前|後前|정면|прям"
)


def plain_words(*texts: str) -> str:
    """Texts in lower case without accents, everything but letters and digits as a space."""
    decomposed = unicodedata.normalize("NFKD", " ".join(texts).lower())
    without_accents = "".join(sign for sign in decomposed if not unicodedata.combining(sign))
    return re.sub(r"[\W_]+", " ", unicodedata.normalize("NFC", without_accents)).strip()


def name_the_chest(words: str) -> bool:
    """Whether the chest is named; the thoracic spine is not the chest.

    Args:
        words: from ``plain_words``.
    """
    return _CHEST.search(_SPINE_OF_THE_CHEST.sub(" ", words)) is not None


def name_another_part(words: str) -> bool:
    """Whether a body part is named that no chest radiograph is made of."""
    return bool(_OTHER.search(words) or _SPINE_OF_THE_CHEST.search(words))


def name_a_lateral_view(words: str) -> bool:
    """Whether a lateral or oblique view is named and no frontal one beside it.

    "PA and lateral" names an examination of two films, not either of them.
    """
    return _LATERAL.search(words) is not None and _FRONTAL.search(words) is None
