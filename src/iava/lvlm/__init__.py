from iava.deprecated import moved_names

__getattr__ = moved_names(__name__, {"LVLM": "iava.lvlm.model:LVLM", "Reading": "iava.lvlm.session:ImageSession"})
