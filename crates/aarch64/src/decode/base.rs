//! Base instructions: Arm DDI 0487, C4.1.

/// Hands the rows of this file, and then those of the other files, to the macro.
#[doc(hidden)]
#[macro_export]
macro_rules! base_instructions {
    ($macro:ident) => {
        $crate::vector_instructions! { $macro
            // Data processing, immediate (C4.1.86)
            "0ii10000iiiiiiiiiiiiiiiiiiiddddd" adr;
            "1ii10000iiiiiiiiiiiiiiiiiiiddddd" adrp;
            "z00100010hiiiiiiiiiiiinnnnnddddd" add_immediate;
            "z01100010hiiiiiiiiiiiinnnnnddddd" adds_immediate;
            "z10100010hiiiiiiiiiiiinnnnnddddd" sub_immediate;
            "z11100010hiiiiiiiiiiiinnnnnddddd" subs_immediate;
            "z00100100krrrrrrssssssnnnnnddddd" and_immediate;
            "z01100100krrrrrrssssssnnnnnddddd" orr_immediate;
            "z10100100krrrrrrssssssnnnnnddddd" eor_immediate;
            "z11100100krrrrrrssssssnnnnnddddd" ands_immediate;
            "z00100101hhiiiiiiiiiiiiiiiiddddd" movn;
            "z10100101hhiiiiiiiiiiiiiiiiddddd" movz;
            "z11100101hhiiiiiiiiiiiiiiiiddddd" movk;
            "z00100110krrrrrrssssssnnnnnddddd" sbfm;
            "z01100110krrrrrrssssssnnnnnddddd" bfm;
            "z10100110krrrrrrssssssnnnnnddddd" ubfm;
            "z00100111k0mmmmmssssssnnnnnddddd" extr;

            // Branches, exceptions, system (C4.1.87)
            "01010100iiiiiiiiiiiiiiiiiii0cccc" b_cond;
            "11010100000iiiiiiiiiiiiiiii00001" svc;
            "11010100000iiiiiiiiiiiiiiii00010" hvc;
            "11010100000iiiiiiiiiiiiiiii00011" smc;
            "11010100001iiiiiiiiiiiiiiii00000" brk;
            "11010100010iiiiiiiiiiiiiiii00000" hlt;
            "11010101000000110010hhhhhhh11111" hint;
            "11010101000000110011....01011111" clrex;
            "11010101000000110011iiii10011111" dsb;
            "11010101000000110011iiii10111111" dmb;
            "11010101000000110011iiii11011111" isb;
            "11010101000000110011000011111111" sb if Sb;
            "1101010100000ppp0100iiiippp11111" msr_immediate;
            "1101010100001rrrrrrrrrrrrrrttttt" sys;
            "110101010001rrrrrrrrrrrrrrrttttt" msr;
            "110101010011rrrrrrrrrrrrrrrttttt" mrs;
            "1101011000011111000000nnnnn00000" br;
            "1101011000111111000000nnnnn00000" blr;
            "1101011001011111000000nnnnn00000" ret;
            "11010110100111110000001111100000" eret;
            "110101100001111100001knnnnn11111" br_authenticated_zero if PAuth;
            "110101110001111100001knnnnnmmmmm" br_authenticated if PAuth;
            "110101100011111100001knnnnn11111" blr_authenticated_zero if PAuth;
            "110101110011111100001knnnnnmmmmm" blr_authenticated if PAuth;
            "110101100101111100001k1111111111" ret_authenticated if PAuth;
            "110101101001111100001k1111111111" eret_authenticated if PAuth;
            "000101iiiiiiiiiiiiiiiiiiiiiiiiii" branch;
            "100101iiiiiiiiiiiiiiiiiiiiiiiiii" branch_link;
            "z0110100iiiiiiiiiiiiiiiiiiittttt" cbz;
            "z0110101iiiiiiiiiiiiiiiiiiittttt" cbnz;
            "b0110110bbbbbiiiiiiiiiiiiiittttt" tbz;
            "b0110111bbbbbiiiiiiiiiiiiiittttt" tbnz;

            // Loads and stores (C4.1.88)
            "zz001000000sssssa.....nnnnnttttt" store_exclusive;
            "zz001000010.....a.....nnnnnttttt" load_exclusive;
            "1z001000001sssssauuuuunnnnnttttt" store_exclusive_pair;
            "1z001000011.....auuuuunnnnnttttt" load_exclusive_pair;
            "zz001000100.....0.....nnnnnttttt" stllr if Lor;
            "zz001000110.....0.....nnnnnttttt" ldlar if Lor;
            "zz001000100.....1.....nnnnnttttt" stlr;
            "zz001000110.....1.....nnnnnttttt" ldar;
            "0z0010000a1sssssr11111nnnnnttttt" casp if Lse;
            "zz0010001a1sssssr11111nnnnnttttt" cas if Lse;
            "0z011000iiiiiiiiiiiiiiiiiiittttt" load_literal;
            "10011000iiiiiiiiiiiiiiiiiiittttt" load_signed_literal;
            "11011000iiiiiiiiiiiiiiiiiii....." prefetch_literal;
            "z010100pp0iiiiiiiuuuuunnnnnttttt" store_pair;
            "z010100pp1iiiiiiiuuuuunnnnnttttt" load_pair;
            "0110100pp1iiiiiiiuuuuunnnnnttttt" load_pair_signed;
            "zz111000000iiiiiiiii00nnnnnttttt" store_unscaled;
            "zz111000010iiiiiiiii00nnnnnttttt" load_unscaled;
            "11111000100iiiiiiiii00.........." prefetch_unscaled;
            "zz1110001x0iiiiiiiii00nnnnnttttt" load_signed_unscaled;
            "zz111000000iiiiiiiiip1nnnnnttttt" store_indexed;
            "zz111000010iiiiiiiiip1nnnnnttttt" load_indexed;
            "zz1110001x0iiiiiiiiip1nnnnnttttt" load_signed_indexed;
            "zz111000000iiiiiiiii10nnnnnttttt" store_unprivileged;
            "zz111000010iiiiiiiii10nnnnnttttt" load_unprivileged;
            "zz1110001x0iiiiiiiii10nnnnnttttt" load_signed_unprivileged;
            "zz111000001mmmmmooos10nnnnnttttt" store_register;
            "zz111000011mmmmmooos10nnnnnttttt" load_register;
            "11111000101.....oooo10.........." prefetch_register;
            "zz1110001x1mmmmmooos10nnnnnttttt" load_signed_register;
            "zz11100100iiiiiiiiiiiinnnnnttttt" store_offset;
            "zz11100101iiiiiiiiiiiinnnnnttttt" load_offset;
            "1111100110iiiiiiiiiiii.........." prefetch_offset;
            "zz1110011xiiiiiiiiiiiinnnnnttttt" load_signed_offset;
            "zz111000101.....110000nnnnnttttt" ldapr if Rcpc;
            "zz111000ar1sssss0ooo00nnnnnttttt" atomic if Lse;
            "zz111000ar1sssss100000nnnnnttttt" swap if Lse;
            "11111000ks1iiiiiiiiiw1nnnnnttttt" load_authenticated if PAuth;

            // Data processing, register (C4.1.89)
            "z0001010hh0mmmmmiiiiiinnnnnddddd" and_shifted;
            "z0001010hh1mmmmmiiiiiinnnnnddddd" bic_shifted;
            "z0101010hh0mmmmmiiiiiinnnnnddddd" orr_shifted;
            "z0101010hh1mmmmmiiiiiinnnnnddddd" orn_shifted;
            "z1001010hh0mmmmmiiiiiinnnnnddddd" eor_shifted;
            "z1001010hh1mmmmmiiiiiinnnnnddddd" eon_shifted;
            "z1101010hh0mmmmmiiiiiinnnnnddddd" ands_shifted;
            "z1101010hh1mmmmmiiiiiinnnnnddddd" bics_shifted;
            "z0001011hh0mmmmmiiiiiinnnnnddddd" add_shifted;
            "z0101011hh0mmmmmiiiiiinnnnnddddd" adds_shifted;
            "z1001011hh0mmmmmiiiiiinnnnnddddd" sub_shifted;
            "z1101011hh0mmmmmiiiiiinnnnnddddd" subs_shifted;
            "z0001011001mmmmmoooiiinnnnnddddd" add_extended;
            "z0101011001mmmmmoooiiinnnnnddddd" adds_extended;
            "z1001011001mmmmmoooiiinnnnnddddd" sub_extended;
            "z1101011001mmmmmoooiiinnnnnddddd" subs_extended;
            "z0011010000mmmmm000000nnnnnddddd" adc;
            "z0111010000mmmmm000000nnnnnddddd" adcs;
            "z1011010000mmmmm000000nnnnnddddd" sbc;
            "z1111010000mmmmm000000nnnnnddddd" sbcs;
            "z0111010010mmmmmcccc00nnnnn0ffff" ccmn_register;
            "z0111010010iiiiicccc10nnnnn0ffff" ccmn_immediate;
            "z1111010010mmmmmcccc00nnnnn0ffff" ccmp_register;
            "z1111010010iiiiicccc10nnnnn0ffff" ccmp_immediate;
            "z0011010100mmmmmcccc00nnnnnddddd" csel;
            "z0011010100mmmmmcccc01nnnnnddddd" csinc;
            "z1011010100mmmmmcccc00nnnnnddddd" csinv;
            "z1011010100mmmmmcccc01nnnnnddddd" csneg;
            "z0011010110mmmmm000010nnnnnddddd" udiv;
            "z0011010110mmmmm000011nnnnnddddd" sdiv;
            "z0011010110mmmmm001000nnnnnddddd" lslv;
            "z0011010110mmmmm001001nnnnnddddd" lsrv;
            "z0011010110mmmmm001010nnnnnddddd" asrv;
            "z0011010110mmmmm001011nnnnnddddd" rorv;
            "z0011010110mmmmm010cbbnnnnnddddd" crc32 if Crc32;
            "10011010110mmmmm001100nnnnnddddd" pacga if PAuth;
            "z101101011000000000000nnnnnddddd" rbit;
            "z101101011000000000001nnnnnddddd" rev16;
            "z101101011000000000010nnnnnddddd" rev32;
            "1101101011000000000011nnnnnddddd" rev64;
            "z101101011000000000100nnnnnddddd" clz;
            "z101101011000000000101nnnnnddddd" cls;
            "11011010110000010000kknnnnnddddd" pac_add if PAuth;
            "11011010110000010001kknnnnnddddd" pac_authenticate if PAuth;
            "11011010110000010010kk11111ddddd" pac_add_zero if PAuth;
            "11011010110000010011kk11111ddddd" pac_authenticate_zero if PAuth;
            "110110101100000101000k11111ddddd" pac_strip if PAuth;
            "z0011011000mmmmm0aaaaannnnnddddd" madd;
            "z0011011000mmmmm1aaaaannnnnddddd" msub;
            "10011011001mmmmm0aaaaannnnnddddd" smaddl;
            "10011011001mmmmm1aaaaannnnnddddd" smsubl;
            "10011011010mmmmm0.....nnnnnddddd" smulh;
            "10011011101mmmmm0aaaaannnnnddddd" umaddl;
            "10011011101mmmmm1aaaaannnnnddddd" umsubl;
            "10011011110mmmmm0.....nnnnnddddd" umulh;
        }
    };
}
