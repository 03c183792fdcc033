"""Tokenizers of each kind, small and whole: what edits begin with."""

from functools import cache


@cache
def make_tokenizers():
    """One tokenizer of each kind of model, with as many parts as it may have."""
    parts = {
        "version": "1.0",
        "truncation": {"direction": "Right", "max_length": 8, "strategy": "LongestFirst", "stride": 0},
        "padding": {
            "strategy": {"Fixed": 8}, "direction": "Right", "pad_to_multiple_of": 8, "pad_id": 0, "pad_type_id": 0,
            "pad_token": "a",
        },
        "added_tokens": [
            {"id": 0, "content": "a", "single_word": False, "lstrip": True, "rstrip": True, "normalized": True,
             "special": True}
        ],
        "normalizer": {
            "type": "Sequence",
            "normalizers": [
                {"type": "NFKC"}, {"type": "StripAccents"}, {"type": "Lowercase"}, {"type": "Prepend", "prepend": "_"},
                {"type": "Replace", "pattern": {"Regex": "[0-9]+"}, "content": "0"},
                {"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True, "strip_accents": None,
                 "lowercase": True},
            ],
        },
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [
                {"type": "Split", "pattern": {"Regex": "\\s+"}, "behavior": "Removed", "invert": False},
                {"type": "Metaspace", "replacement": "_", "prepend_scheme": "always", "split": True},
                {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
                {"type": "Digits", "individual_digits": True}, {"type": "Punctuation", "behavior": "Isolated"},
            ],
        },
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "a", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {"a": {"id": "a", "ids": [0], "tokens": ["a"]}},
        },
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True},
    }  # fmt: skip
    vocabulary = {"a": 0, "b": 1, "ab": 2, "##b": 3}
    models = (
        {"type": "WordLevel", "vocab": vocabulary, "unk_token": "a"},
        {"type": "WordPiece", "vocab": vocabulary, "unk_token": "a", "continuing_subword_prefix": "##",
         "max_input_chars_per_word": 100},
        {"type": "BPE", "dropout": None, "unk_token": "a", "continuing_subword_prefix": None,
         "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "ignore_merges": False,
         "vocab": vocabulary, "merges": [["a", "b"]]},
        {"type": "Unigram", "unk_id": 0, "vocab": [["a", -1.0], ["b", -2.0], ["ab", -1.5]], "byte_fallback": False},
    )  # fmt: skip
    bert = {**parts, "post_processor": {"type": "BertProcessing", "sep": ["a", 0], "cls": ["b", 1]}, "padding": None}
    return [{**parts, "model": model} for model in models] + [{**bert, "model": models[1]}]
