-- 0018_idle_memory.sql - what sleeps at the end of its time may leave its memory behind (spec 06 §7, autoPauseMemory).
ALTER TABLE capsules ADD idle_memory boolean NOT NULL DEFAULT true; -- false: hibernates with its disk alone
