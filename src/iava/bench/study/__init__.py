"""Answers to the questions that the paper leaves open, with numbers.

Each study writes study.json, study.md (a table, and the command that made it) and study.svg to its folder, is seeded,
and goes on where it was when it was stopped. On the pocket model:

    iava ablate i --out runs/ablate/i                       # and lambda, alpha, beta, layers, general, negative
    iava study auto --split tune --out runs/study/auto
    iava study auto --split test-heldout --settings runs/tune/iava/tune.json --out runs/study/auto-heldout
    iava study wording --split tune --out runs/study/wording
    iava study regions --split test --out runs/study/regions
    iava study negatives --split test --out runs/study/negatives
    iava study candidates --split tune --regions runs/study/regions-tune/study.json --out runs/study/candidates

For other models the regions come from annotations as COCO has them, the questions from a benchmark's folder:

    iava study regions --model llava-hf/llava-1.5-7b-hf --instances instances_val2014.json --images val2014 --out DIR
    iava study negatives --model llava-hf/llava-1.5-7b-hf --data DATA --out DIR
"""
