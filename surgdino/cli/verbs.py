"""The verbs, what each does in a line, and how its words are read."""

VERBS = {
    "pretrain": "continue self-supervised pretraining on surgical video",
    "finetune": "learn a task on a backbone and test it: task=phase, tools, triplet, segmentation, instances, vqa",
    "evaluate": "test a fine-tuned checkpoint again, or on other data: surgdino evaluate checkpoint=RUN",
    "predict": "a video's phases, masks, objects, ... as tables and pictures: surgdino predict VIDEO checkpoint=RUN",
    "benchmark": "backbones side by side: surgdino benchmark backbones=[natural:FILE, RUN] data.cholec80=FOLDER ...",
    "curate": "which frames of an archive are worth learning from: surgdino curate dataset=folder data.root=/archive",
    "merge": "average adapted backbones with the weights they started from: surgdino merge INITIAL ADAPTED out=FOLDER",
    "export": "a model for timm, transformers, ONNX, MONAI, torch.export: surgdino export RUN format=timm out=FOLDER",
    "verify": "check a dataset folder against its card",
    "show": "pictures of what training sees: surgdino show augment|crops|content|clusters|duplicates",
    "bench": "what limits training on this machine, disk, CPU or GPU: surgdino bench step|data|store",
    "score": "anyone's predictions under every protocol: surgdino score task=phase truth=... predictions=...",
    "report": "what a run did, as one HTML file: surgdino report RUN",
    "share": "what of a run may leave the house: surgdino share RUN out=FOLDER",
    "compare": "two runs side by side: surgdino compare RUN_A RUN_B",
    "list": "datasets, recipes, models, methods and augmentations",
    "weights": "natural-image checkpoints: surgdino weights list | get NAME",
    "doctor": "has this machine what surgdino needs: packages, decoders, disk, memory, GPU",
    "completion": "what the Tab key offers in your shell: surgdino completion bash|zsh|fish",
    "demo": "every step on a small generated set, in minutes on a CPU",
}
# Verbs that take key=value settings through Hydra.
CONFIGURED = (
    *("pretrain", "finetune", "evaluate", "benchmark", "predict", "curate", "merge", "export"),
    *("verify", "show", "bench", "score"),
)

# Verbs about finished runs, and those that are files of this room.
OF_RUNS = ("report", "share", "compare")
HERE = ("demo", "doctor", "completion")
