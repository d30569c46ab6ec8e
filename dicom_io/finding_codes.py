"""The codes by which structured reports of other producers speak of pneumonia and of its absence.

Sources: PS3.16 context groups 222 (normality), 240 (present, absent), 250 (positive, negative) and
3770 (problem status), as pydicom's code dictionary lists them; SNOMED CT below 233604007
|Pneumonia (disorder)| and below 408729009 |Finding context|; RadLex; UMLS. Each concept stands
under every scheme that reports name it by: SCT (SNOMED CT), SRT (SNOMED RT, in older objects),
RADLEX and UMLS.
"""

from typing import Final

ConceptKey = tuple[str, str]
"""Coding Scheme Designator and Code Value of a concept."""

# SNOMED CT keeps "pneumonia" for infections. Left out on purpose: pneumonitis (205237003), the
# interstitial (64667001) and the organising pneumonias, and consolidation (95436008), which are
# other diseases or no disease of their own.
PNEUMONIA: Final[frozenset[ConceptKey]] = frozenset({
    ("SCT", "233604007"),           # pneumonia
    ("SRT", "D2-0061C"),
    ("RADLEX", "RID5350"),
    ("UMLS", "C0032285"),
    ("SCT", "312342009"),           # infective
    ("SCT", "53084003"),            # bacterial
    ("SCT", "75570004"),            # viral
    ("SCT", "233606009"),           # atypical
    ("SCT", "278516003"),           # lobar
    ("SCT", "396285007"),           # bronchopneumonia
    ("SCT", "385093006"),           # community acquired
    ("SCT", "425464007"),           # acquired in hospital
    ("SCT", "429271009"),           # ventilator acquired
    ("SCT", "422588002"),           # aspiration
    ("SCT", "882784691000119100"),  # caused by SARS-CoV-2
})  # fmt: skip

# "Undetermined", "unknown" and "abnormal" say nothing of pneumonia and stand nowhere here.
NORMAL: Final[frozenset[ConceptKey]] = frozenset({
    ("SCT", "17621005"),            # normal
    ("SRT", "G-A460"),
    ("RADLEX", "RID13173"),
    ("SCT", "281900007"),           # no abnormality detected
})  # fmt: skip

PRESENT: Final[frozenset[ConceptKey]] = frozenset({
    ("SCT", "52101004"), ("SRT", "G-A203"),    # present
    ("SCT", "410515003"),                      # known present
    ("SCT", "410605003"),                      # confirmed present
    ("SCT", "260373001"),                      # detected
    ("SCT", "10828004"), ("SRT", "G-A200"),    # positive
    ("SCT", "373066001"), ("SRT", "R-0038D"),  # yes
})  # fmt: skip

ABSENT: Final[frozenset[ConceptKey]] = frozenset({
    ("SCT", "2667000"),                        # absent
    ("SCT", "272519000"), ("SRT", "R-4089B"),  # absent, as context group 240 has it
    ("SCT", "410516002"), ("SRT", "G-A46B"),   # known absent
    ("SCT", "410594000"),                      # definitely not present
    ("SCT", "260415000"),                      # not detected
    ("SCT", "260385009"), ("SRT", "R-40759"),  # negative
    ("SCT", "373067005"), ("SRT", "R-00339"),  # no
})  # fmt: skip

# Answers that leave it open, whatever they are an answer to.
OPEN: Final[frozenset[ConceptKey]] = frozenset({
    ("SCT", "82334004"), ("SRT", "G-A385"),    # indeterminate
    ("SCT", "373068000"), ("SRT", "R-0038A"),  # undetermined
    ("SCT", "371934000"),                      # normality undetermined
    ("SCT", "261665006"), ("SRT", "R-41198"),  # unknown
    ("SCT", "419984006"),                      # inconclusive
    ("SCT", "410590009"),                      # known possible
    ("SCT", "410592001"),                      # probably present
    ("SCT", "410593006"),                      # probably not present
    ("SCT", "415684004"),                      # suspected
})  # fmt: skip

FINDING: Final[frozenset[ConceptKey]] = frozenset({
    ("DCM", "121071"),              # finding
    ("DCM", "121073"),              # impression
    ("DCM", "121077"),              # conclusion
})  # fmt: skip

PRESENCE: Final[frozenset[ConceptKey]] = frozenset({
    ("SCT", "705057003"),           # presence
    ("SCT", "408729009"),           # finding context
    ("SCT", "363713009"),           # has interpretation
})  # fmt: skip

CERTAINTY: Final[frozenset[ConceptKey]] = frozenset({
    ("DCM", "111012"),              # certainty of finding
    ("DCM", "111013"),              # certainty of impression
})  # fmt: skip

FINDING_SITE: Final[frozenset[ConceptKey]] = frozenset({
    ("SCT", "363698007"), ("SRT", "G-C0E3"),
})  # fmt: skip

LATERALITY: Final[frozenset[ConceptKey]] = frozenset({
    ("SCT", "272741003"), ("SRT", "G-C171"),
})  # fmt: skip

BOTH_SIDES: Final[frozenset[ConceptKey]] = frozenset({
    ("SCT", "51440002"), ("SRT", "G-A102"),
})  # fmt: skip

# Sites where pneumonia that is not there is nowhere on the film.
WHOLE_CHEST: Final[frozenset[ConceptKey]] = frozenset({
    ("SCT", "39607008"), ("SRT", "T-28000"),   # lung
    ("SCT", "74101002"),                       # both lungs
    ("SCT", "181216001"),                      # entire lung
    ("SCT", "51185008"), ("SRT", "T-D3000"),   # thorax
    ("SCT", "43799004"), ("SRT", "T-D3200"),   # chest cavity
})  # fmt: skip

MEASUREMENT_GROUP: Final[ConceptKey] = ("DCM", "125007")

# Sections that speak of the whole examination.
SECTIONS_OF_THE_WHOLE: Final[frozenset[ConceptKey]] = frozenset({
    ("DCM", "121070"),              # findings
    ("DCM", "121072"),              # impressions
    ("DCM", "121076"),              # conclusions
    ("DCM", "126010"),              # imaging measurements
    MEASUREMENT_GROUP,
    ("UMLS", "C0034375"),           # qualitative evaluations
})  # fmt: skip

# Sections that speak of other times, of questions and of plans.
SECTIONS_LEFT_OUT: Final[frozenset[ConceptKey]] = frozenset({
    ("DCM", "121060"),              # history
    ("DCM", "121062"),              # request
    ("DCM", "121066"),              # prior procedure descriptions
    ("DCM", "121068"),              # previous findings
    ("DCM", "121074"),              # recommendations
    ("DCM", "121109"),              # indications for procedure
})  # fmt: skip

DEVICE_OBSERVER_MODEL_NAME: Final[ConceptKey] = ("DCM", "121015")
