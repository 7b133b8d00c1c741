"""What torchrun runs, a job at a time; by hand as well: python -m nanochat.recipes KIND --spec FILE

dataset.py tokenizer.py pretrain.py sft.py evaluate.py    the kinds
training_loop.py   what pretrain and sft share;  resume.py  from where they go on
saving.py  checkpoints, behind the training step;  protected.py  those that stay
conversations.py batch.py rates.py device.py validation.py    what they are put together from
job.py progress.py stop.py distributed.py      the job around them
"""
